/* Between the core of proxywasm_host and engines with native code: what each may hand to the other.
 *
 * All of it is optional: an attribute of an object, which is a capsule whose name carries the version. Who does not know
 * a name leaves the capsule alone and goes through Python. What a capsule points at lives as long as the object that it
 * was taken from. All is to be called with the GIL held. `proxywasm_host.engine.protocol` says which objects.
 */
#ifndef PROXYWASM_HOST_H
#define PROXYWASM_HOST_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#define PROXYWASM_NATIVE_ABI 1 /* as in extension.py, and at the end of these names: */
#define PROXYWASM_HOSTCALL "proxywasm_host.hostcall.1"
#define PROXYWASM_CALLBACK "proxywasm_host.callback.1"
#define PROXYWASM_MEMORY "proxywasm_host.memory.1"

/* `native_entry` of a host function, whose parameters are i32 and i64. `slots` hold them, one in every `stride` words, an
 * i32 in the lower half. Returns the i32 result, or 0 if there is none; -1 with a Python exception set. */
typedef struct {
    int64_t (*call)(void *self, const uint64_t *slots, size_t stride);
    void *self;
} Proxywasm_hostcall;

/* `native_call` of a function of the guest, whose parameters and result are i32 and i64. `slots` hold the `count`
 * arguments, and afterwards in the first, for which there is always room, the result with nothing above an i32, or 0 if
 * there is none. Returns 0; -1 with a Python exception set. */
typedef struct {
    int (*call)(void *self, uint64_t *slots, size_t count);
    void *self;
} Proxywasm_callback;

/* `native_range` of a memory: where its bytes are and how many; 0 from the moment on at which the instance is closed. */
typedef struct {
    uint64_t bytes, size;
} Proxywasm_memory;

/* Find what a capsule that is an attribute of an object points at, or NULL if there is none of this name and version.
 * 0, or -1 with an exception. */
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

/* The exception that is set, as an object, and no longer set; NULL if there is none. */
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

/* Set an exception, with the traceback that it has, and take the reference over; NULL changes nothing. */
static inline void proxywasm_set_exception(PyObject *error) {
    if (!error) return;
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(error);
#else
    PyErr_Restore(Py_NewRef(Py_TYPE(error)), error, PyException_GetTraceback(error));
#endif
}

/* Refuse to fill a module whose state is static in an interpreter other than the main one. */
static inline int proxywasm_in_main_interpreter(PyObject *module) {
    if (PyInterpreterState_Get() == PyInterpreterState_Main()) return 0;
    PyErr_SetString(PyExc_ImportError, "a sub-interpreter cannot load it");
    return -1;
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

/* The slots of such a module before the one that fills it: it is for one interpreter, and needs the GIL. */
#define PROXYWASM_SLOTS {Py_mod_exec, (void *)proxywasm_in_main_interpreter}, PROXYWASM_ONE_INTERPRETER PROXYWASM_GIL
/* clang-format on */

#endif
