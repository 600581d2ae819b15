// Sorts lists: equal values keep their order, and each key is computed once. Included by py/objlist.c.
static void merge_sort(mp_obj_t *items, mp_obj_t *keys, mp_obj_t *spare, size_t count, bool reverse) {
    if (count < 2) {
        return;
    }
    MP_STACK_CHECK();
    size_t half = count / 2, i = 0, j = half, k = 0;
    merge_sort(items, keys, spare, half, reverse);
    merge_sort(items + half, keys + half, spare, count - half, reverse);
    mp_obj_t *spare_keys = spare + count;
    while (i < half && j < count) {
        bool second = reverse ? mp_obj_is_true(mp_binary_op(MP_BINARY_OP_LESS, keys[i], keys[j]))
            : mp_obj_is_true(mp_binary_op(MP_BINARY_OP_LESS, keys[j], keys[i]));
        size_t from = second ? j++ : i++;
        spare[k] = items[from];
        spare_keys[k++] = keys[from];
    }
    // The rest of the second half is already in place.
    memmove(items + k, items + i, (half - i) * sizeof *items);
    memmove(keys + k, keys + i, (half - i) * sizeof *keys);
    memcpy(items, spare, k * sizeof *items);
    memcpy(keys, spare_keys, k * sizeof *keys);
}

static void stable_sort(mp_obj_t *items, size_t count, mp_obj_t key, bool reverse) {
    // The keys, room for values and keys while they are merged, and the values.
    mp_obj_t *keys = m_new(mp_obj_t, 4 * count);
    for (size_t i = 0; i < count; i++) {
        keys[i] = key == mp_const_none ? items[i] : mp_call_function_1(key, items[i]);
    }
    memcpy(keys + 3 * count, items, count * sizeof *items);
    merge_sort(keys + 3 * count, keys, keys + count, count, reverse);
    memcpy(items, keys + 3 * count, count * sizeof *items);
    m_del(mp_obj_t, keys, 4 * count);
}
