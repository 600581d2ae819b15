/* The state of a context that hostcalls read and write: the C form of ContextState in abi/context.py.
 *
 * Maps and buffers are stored in the object until Python reads their list; from then on they are in that list. */
#include "native.h"

void context_begin(Context *self, PyObject *id, PyObject *root) {
    Py_XSETREF(self->id, Py_NewRef(id));
    Py_XSETREF(self->root, Py_NewRef(root ? root : (PyObject *)self));
    places_replace(&self->maps, NULL);
    places_replace(&self->buffers, NULL);
    self->maps.count = root ? STREAM_MAPS : MAPS;
    self->buffers.count = BUFFERS;
}

static int context_init(Context *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"id", "root", NULL};
    PyObject *id, *root = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|O:Context", names, &id, &root)) return -1;
    context_begin(self, id, root == Py_None ? NULL : root);
    return 0;
}

/* -- Places --------------------------------------------------------------------------------------------------- */

PyObject *place_get(const Places *places, size_t index) {
    if (!places->list) return index < places->count && places->item[index] ? places->item[index] : Py_None;
    bool there = PyList_CheckExact(places->list) && index < (size_t)PyList_GET_SIZE(places->list);
    return there ? PyList_GET_ITEM(places->list, (Py_ssize_t)index) : Py_None;
}

int place_set(Places *places, size_t index, PyObject *value) {
    if (places->list) return PyList_SetItem(places->list, (Py_ssize_t)index, Py_NewRef(value));
    assert(index < places->count);
    Py_XSETREF(places->item[index], value == Py_None ? NULL : Py_NewRef(value));
    return 0;
}

static PyObject *get_places(PyObject *self, void *at) {
    Places *places = (Places *)((char *)self + (size_t)at);
    if (places->list) return Py_NewRef(places->list);
    PyObject *list = PyList_New(places->count);
    if (!list) return NULL;
    if (places->list) { /* making the new list ran the garbage collector, and this ran code that read the list too */
        Py_DECREF(list);
        return Py_NewRef(places->list);
    }
    for (uint8_t i = 0; i < places->count; i++) {
        PyObject *item = places->item[i];
        places->item[i] = NULL;
        PyList_SET_ITEM(list, i, item ? item : Py_NewRef(Py_None));
    }
    places->list = list;
    return Py_NewRef(list);
}

static int visit_places(const Places *places, visitproc visit, void *arg) {
    Py_VISIT(places->list);
    for (size_t i = 0; i < places->count; i++) Py_VISIT(places->item[i]);
    return 0;
}

void places_replace(Places *places, PyObject *list) {
    Py_XSETREF(places->list, Py_XNewRef(list));
    for (size_t i = 0; i < places->count; i++) Py_CLEAR(places->item[i]);
}

static int set_places(PyObject *self, PyObject *list, void *at) {
    if (!list || !PyList_CheckExact(list)) return PyErr_SetString(PyExc_TypeError, "a list is wanted"), -1;
    places_replace((Places *)((char *)self + (size_t)at), list);
    return 0;
}

/* -- The type ------------------------------------------------------------------------------------------------- */

int context_traverse(Context *self, visitproc visit, void *arg) {
    Py_VISIT(self->id);
    Py_VISIT(self->root);
    int stopped = visit_places(&self->maps, visit, arg);
    return stopped ? stopped : visit_places(&self->buffers, visit, arg);
}

int context_clear(Context *self) {
    Py_CLEAR(self->id);
    Py_CLEAR(self->root);
    places_replace(&self->maps, NULL);
    places_replace(&self->buffers, NULL);
    return 0;
}

static void context_dealloc(Context *self) {
    PyObject_GC_UnTrack(self);
    context_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyMemberDef context_members[] = {
    {"id", T_OBJECT_EX, offsetof(Context, id), READONLY, "The number by which the guest knows it."},
    {"root", T_OBJECT_EX, offsetof(Context, root), READONLY, "The root context of its plugin; itself, if it is one."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef context_getset[] = {
    {"maps", get_places, set_places, "Header maps by `MapType`; those of callouts (from 4 on) are the root context's.",
     (void *)offsetof(Context, maps)},
    {"buffers", get_places, set_places, "Buffers by `BufferType`; 4, 5, 7 and 9 are the root context's, 6 the VM's.",
     (void *)offsetof(Context, buffers)},
    PUBLIC_FLAG(Context, read_only, "True during on_log, in which nothing can be changed."),
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject ContextType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.ContextState",
    .tp_doc = "The state of a context that hostcalls read and write.",
    .tp_basicsize = sizeof(Context),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)context_init,
    .tp_dealloc = (destructor)context_dealloc,
    .tp_traverse = (traverseproc)context_traverse,
    .tp_clear = (inquiry)context_clear,
    .tp_members = context_members,
    .tp_getset = context_getset,
};
