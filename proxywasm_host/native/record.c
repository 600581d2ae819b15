/* Objects of Python classes with slots, made without a call of the class. */
#include "native.h"

static int find_layout(Layout *layout, PyObject *class, PyObject *const *names, int count) {
    layout->found = PyType_Check(class) && ((PyTypeObject *)class)->tp_new == PyBaseObject_Type.tp_new;
    for (int i = 0; i < count; i++) {
        PyObject *slot = PyObject_GetAttr(class, names[i]);
        if (!slot) return -1;
        bool own = Py_IS_TYPE(slot, &PyMemberDescr_Type) && PyDescr_TYPE(slot) == (PyTypeObject *)class;
        PyMemberDef *member = own ? ((PyMemberDescrObject *)slot)->d_member : NULL;
        if (member && member->type == T_OBJECT_EX) layout->at[i] = member->offset;
        else layout->found = false;
        Py_DECREF(slot);
    }
    Py_XSETREF(layout->class, Py_NewRef(class));
    return 0;
}

PyObject *make_record(Layout *layout, PyObject *class, PyObject *const *names, PyObject *const *values, int count) {
    if (layout->class != class && find_layout(layout, class, names, count)) return NULL;
    if (!layout->found) return PyObject_Vectorcall(class, values, (size_t)count, NULL);
    PyObject *made = ((PyTypeObject *)class)->tp_alloc((PyTypeObject *)class, 0);
    for (int i = 0; made && i < count; i++) *(PyObject **)((char *)made + layout->at[i]) = Py_NewRef(values[i]);
    return made;
}

PyObject *record_field(const Layout *layout, PyObject *object, int which, PyObject *name) {
    if (layout->class == (PyObject *)Py_TYPE(object) && layout->found) {
        PyObject *value = *(PyObject **)((char *)object + layout->at[which]);
        if (value) return Py_NewRef(value);
    }
    return PyObject_GetAttr(object, name);
}

/* -- The __init__ that direct_init.py gives a class ------------------------------------------------------------- */

typedef struct {
    PyTypeObject *class;
    Py_ssize_t count, at[];
} Slots;

static void free_slots(PyObject *capsule) {
    Slots *slots = PyCapsule_GetPointer(capsule, NULL);
    Py_DECREF(slots->class);
    PyMem_Free(slots);
}

static PyObject *set_slots(PyObject *capsule, PyObject *const *args, Py_ssize_t count) {
    const Slots *slots = PyCapsule_GetPointer(capsule, NULL);
    if (count != slots->count + 1 || !PyObject_TypeCheck(args[0], slots->class))
        return PyErr_Format(PyExc_TypeError, "an object of %s and %zd values are needed", slots->class->tp_name,
                            slots->count);
    for (Py_ssize_t i = 0; i < slots->count; i++) {
        PyObject **slot = (PyObject **)((char *)args[0] + slots->at[i]);
        Py_XSETREF(*slot, Py_NewRef(args[i + 1]));
    }
    Py_RETURN_NONE;
}

PyObject *slot_setter(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    static PyMethodDef method = {"set_slots", (PyCFunction)(void (*)(void))set_slots, METH_FASTCALL, NULL};
    if (!count || !PyType_Check(args[0]))
        return PyErr_SetString(PyExc_TypeError, "a class and its slots are needed"), NULL;
    Slots *slots = PyMem_Malloc(sizeof *slots + (size_t)(count - 1) * sizeof *slots->at);
    if (!slots) return PyErr_NoMemory();
    slots->count = count - 1;
    for (Py_ssize_t i = 0; i < slots->count; i++) {
        bool own = Py_IS_TYPE(args[i + 1], &PyMemberDescr_Type) && PyDescr_TYPE(args[i + 1]) == (PyTypeObject *)args[0];
        const PyMemberDef *member = own ? ((PyMemberDescrObject *)args[i + 1])->d_member : NULL;
        if (!member || member->type != T_OBJECT_EX) {
            PyMem_Free(slots);
            return PyErr_Format(PyExc_TypeError, "%R is no slot of %R", args[i + 1], args[0]);
        }
        slots->at[i] = member->offset;
    }
    slots->class = (PyTypeObject *)Py_NewRef(args[0]);
    PyObject *capsule = PyCapsule_New(slots, NULL, free_slots);
    if (!capsule) {
        Py_DECREF(slots->class);
        PyMem_Free(slots);
        return NULL;
    }
    PyObject *made = PyCFunction_New(&method, capsule);
    Py_DECREF(capsule);
    return made;
}
