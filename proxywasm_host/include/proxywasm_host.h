/* The interface between the core of proxywasm_host and engines with native code.
 *
 * All parts are optional: each is an attribute of an object, a capsule whose name ends with the version. Code that does
 * not support a name ignores the capsule and calls Python instead. The target of a capsule exists as long as the object
 * with the attribute. All functions must be called with the GIL held. `proxywasm_host.engine.protocol` defines which
 * objects have these attributes.
 */
#ifndef PROXYWASM_HOST_H
#define PROXYWASM_HOST_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#define PROXYWASM_NATIVE_ABI 1 /* as in extension.py, and at the end of these names */
#define PROXYWASM_HOSTCALL "proxywasm_host.hostcall.1"
#define PROXYWASM_CALLBACK "proxywasm_host.callback.1"
#define PROXYWASM_MEMORY "proxywasm_host.memory.1"

/* `native_entry` of a host function, whose parameters are i32 and i64. `slots` has one parameter in every `stride`
 * words, an i32 in the lower half. Returns the i32 result, or 0 if there is none; -1 with a Python exception set. */
typedef struct {
    int64_t (*call)(void *self, const uint64_t *slots, size_t stride);
    void *self;
} Proxywasm_hostcall;

/* `native_call` of a function of the guest, whose parameters and result are i32 and i64. `slots` has the `count`
 * arguments. The first slot, which always exists, receives the result: an i32 with zeros above it, or 0 if there is no
 * result. Returns 0; -1 with a Python exception set. */
typedef struct {
    int (*call)(void *self, uint64_t *slots, size_t count);
    void *self;
} Proxywasm_callback;

/* `native_range` of a memory: the address and number of its bytes. The number is 0 once the instance is closed. */
typedef struct {
    uint64_t bytes, size;
} Proxywasm_memory;

/* Find the target of a capsule in an attribute of an object; NULL if it does not have this name and version. Returns 0,
 * or -1 with an exception. */
static inline int proxywasm_find(PyObject *object, const char *attribute, const char *name, void **found) {
    PyObject *capsule = PyObject_GetAttrString(object, attribute);
    *found = NULL;
    if (!capsule) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) return -1;
        PyErr_Clear();
        return 0;
    }
    if (PyCapsule_IsValid(capsule, name)) *found = PyCapsule_GetPointer(capsule, name);
    Py_DECREF(capsule);
    return 0;
}

/* Take the current exception as an object, and clear it; NULL if there is none. */
static inline PyObject *proxywasm_take_exception(void) {
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (!type) return NULL;
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback) PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

/* Set an exception with its traceback, and take over the reference. NULL changes nothing. */
static inline void proxywasm_set_exception(PyObject *error) {
    if (!error) return;
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(error);
#else
    PyErr_Restore(Py_NewRef(Py_TYPE(error)), error, PyException_GetTraceback(error));
#endif
}

/* Refuse to load a module with static state in an interpreter other than the main one. */
static inline int proxywasm_in_main_interpreter(PyObject *module) {
    if (PyInterpreterState_Get() == PyInterpreterState_Main()) return 0;
    PyErr_SetString(PyExc_ImportError, "a sub-interpreter cannot load it");
    return -1;
}

/* A number that Python has too. A list of them ends with one without a name. */
typedef struct {
    const char *name;
    long long value;
} Proxywasm_constant;

#define PROXYWASM_CONSTANT(name) {#name, (long long)name}

/* Add a list to the dict CONSTANTS of a module: extension.check_constants compares it. Returns 0, or -1 with an
 * exception. */
static inline int proxywasm_add_constants(PyObject *module, const Proxywasm_constant *constants) {
    PyObject *names = PyModule_GetDict(module), *all = PyDict_GetItemString(names, "CONSTANTS");
    all = all ? Py_NewRef(all) : PyDict_New();
    int failed = !all || PyDict_SetItemString(names, "CONSTANTS", all);
    for (; !failed && constants->name; constants++) {
        PyObject *value = PyLong_FromLongLong(constants->value);
        failed = !value || PyDict_SetItemString(all, constants->name, value);
        Py_XDECREF(value);
    }
    Py_XDECREF(all);
    return failed ? -1 : 0;
}

/* clang-format off */
#if PY_VERSION_HEX >= 0x030C0000
#define PROXYWASM_ONE_INTERPRETER {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#else
#define PROXYWASM_ONE_INTERPRETER
#endif
#if PY_VERSION_HEX >= 0x030D0000
#define PROXYWASM_GIL {Py_mod_gil, Py_MOD_GIL_USED},
#else
#define PROXYWASM_GIL
#endif

/* The slots of such a module, before the slot that fills it: it supports one interpreter, and needs the GIL. */
#define PROXYWASM_SLOTS {Py_mod_exec, (void *)proxywasm_in_main_interpreter}, PROXYWASM_ONE_INTERPRETER PROXYWASM_GIL
/* clang-format on */

#endif
