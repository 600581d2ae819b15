// Keeps the keys of MicroPython's maps in order, whatever their size: a map is an array of keys and values in the order
// in which they were set. Behind a large array is an index, a hash table of the places in it, counted from 1. After a
// key is removed, the index is rebuilt when it is next needed. Included by py/map.c.
#include <string.h>

#include "py/gc.h"

#define MANY 8

static size_t index_size(size_t alloc) {
    size_t size = 16;
    while (size < alloc + alloc / 2) {
        size *= 2;
    }
    return size;
}

static size_t hash_of(mp_obj_t key) {
    return mp_obj_is_qstr(key) ? qstr_hash(MP_OBJ_QSTR_VALUE(key)) : (size_t)MP_OBJ_SMALL_INT_VALUE(mp_unary_op(MP_UNARY_OP_HASH, key));
}

static void index_key(mp_map_t *map, size_t hash, size_t place) {
    uint32_t *index = (uint32_t *)(map->table + map->alloc);
    size_t mask = index_size(map->alloc) - 1, at = hash & mask;
    while (index[at]) {
        at = (at + 1) & mask;
    }
    index[at] = place + 1;
}

// Give the map room for `alloc` keys, with an index if they are many.
static void resize(mp_map_t *map, size_t alloc) {
    bool many = alloc > MANY;
    size_t size = alloc * sizeof(mp_map_elem_t) + (many ? index_size(alloc) * sizeof(uint32_t) : 0);
    map->table = m_realloc(map->table, size);
    map->alloc = alloc;
    memset(map->table + map->used, 0, size - map->used * sizeof(mp_map_elem_t));
    map->is_indexed = many;
    for (size_t i = 0; many && i < map->used; i++) {
        index_key(map, hash_of(map->table[i].key), i);
    }
}

static mp_map_elem_t *lookup_ordered(mp_map_t *map, mp_obj_t key, mp_map_lookup_kind_t kind, bool by_pointer) {
    // An unhashable key is an error, even in a map that needs no hash.
    size_t hash = mp_obj_is_qstr(key) && map->alloc <= MANY ? 0 : hash_of(key);
    mp_map_elem_t *found = NULL;
    if (map->used > MANY && !map->is_indexed && kind != MP_MAP_LOOKUP_REMOVE_IF_FOUND && !gc_is_locked()) {
        resize(map, map->alloc);
    }
    if (map->is_indexed) {
        uint32_t *index = (uint32_t *)(map->table + map->alloc);
        size_t mask = index_size(map->alloc) - 1;
        for (size_t at = hash & mask; index[at]; at = (at + 1) & mask) {
            mp_map_elem_t *one = &map->table[index[at] - 1];
            if (one->key == key || (!by_pointer && mp_obj_equal(one->key, key))) {
                found = one;
                break;
            }
        }
    } else {
        for (mp_map_elem_t *one = map->table, *top = one + map->used; one < top; one++) {
            if (one->key == key || (!by_pointer && mp_obj_equal(one->key, key))) {
                found = one;
                break;
            }
        }
    }
    if (found) {
        if (kind == MP_MAP_LOOKUP_REMOVE_IF_FOUND) {
            // The caller reads the removed value in the slot after the last one.
            mp_obj_t value = found->value;
            map->used--;
            map->is_indexed = 0;
            memmove(found, found + 1, (map->table + map->used - found) * sizeof *found);
            found = map->table + map->used;
            found->key = MP_OBJ_NULL;
            found->value = value;
            return found;
        }
        MAP_CACHE_SET(key, found - map->table);
        return found;
    }
    if (kind != MP_MAP_LOOKUP_ADD_IF_NOT_FOUND) {
        return NULL;
    }
    if (map->used == map->alloc) {
        resize(map, map->alloc + 4 + map->alloc / 2);
        hash = hash ? hash : hash_of(key);
    }
    found = &map->table[map->used];
    found->key = key;
    found->value = MP_OBJ_NULL;
    if (!mp_obj_is_qstr(key)) {
        map->all_keys_are_qstrs = 0;
    }
    if (map->is_indexed) {
        index_key(map, hash, map->used);
    }
    map->used++;
    return found;
}
