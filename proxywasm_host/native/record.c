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
