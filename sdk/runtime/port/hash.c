// The module `_hash`: Hash(name), with update, digest and copy, of RFC 1321 (MD5) and FIPS 180-4 (the SHA family).
#include <string.h>

#include "py/objstr.h"
#include "py/runtime.h"

// The fractional parts of the cube roots of the first 80 primes; SHA-256 has the upper halves of the first 64.
static const uint64_t cube_roots[80] = {
    0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc,
    0x3956c25bf348b538, 0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118,
    0xd807aa98a3030242, 0x12835b0145706fbe, 0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2,
    0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235, 0xc19bf174cf692694,
    0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
    0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5,
    0x983e5152ee66dfab, 0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4,
    0xc6e00bf33da88fc2, 0xd5a79147930aa725, 0x06ca6351e003826f, 0x142929670a0e6e70,
    0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed, 0x53380d139d95b3df,
    0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b,
    0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30,
    0xd192e819d6ef5218, 0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8,
    0x19a4c116b8d2d0c8, 0x1e376c085141ab53, 0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8,
    0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373, 0x682e6ff3d6b2b8a3,
    0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec,
    0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b,
    0xca273eceea26619c, 0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178,
    0x06f067aa72176fba, 0x0a637dc5a2c898a6, 0x113f9804bef90dae, 0x1b710b35131c471b,
    0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc, 0x431d67c49c100d4c,
    0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817,
};
// Those of the square roots of the first 16 primes: the initial values of SHA-512 and SHA-384. The upper halves of the
// first 8 are those of SHA-256, the lower halves of the last 8 those of SHA-224.
static const uint64_t square_roots[16] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
    0xcbbb9d5dc1059ed8, 0x629a292a367cd507, 0x9159015a3070dd17, 0x152fecd8f70e5939,
    0x67332667ffc00b31, 0x8eb44a8768581511, 0xdb0c2e0d64f98fa7, 0x47b5481dbefa4fa4,
};
// The sine of 1 to 64, times 2 to the power of 32.
static const uint32_t sines[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
};
static const uint32_t small[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};

enum { MD5, SHA1, SHA224, SHA256, SHA384, SHA512 };
static const struct {
    const char *name;
    uint8_t digest, block;
} kinds[] = {{"md5", 16, 64}, {"sha1", 20, 64}, {"sha224", 28, 64}, {"sha256", 32, 64}, {"sha384", 48, 128}, {"sha512", 64, 128}};

typedef struct {
    mp_obj_base_t base;
    uint8_t kind;
    uint64_t size;
    uint64_t state[8];
    uint8_t block[128];
} hash;

static uint32_t left(uint32_t x, int n) { return x << n | x >> (32 - n); }
static uint32_t right(uint32_t x, int n) { return x >> n | x << (32 - n); }
static uint64_t right64(uint64_t x, int n) { return x >> n | x << (64 - n); }

static uint64_t word(const uint8_t *at, int size, int little) {
    uint64_t x = 0;
    for (int i = 0; i < size; i++) {
        x = x << 8 | at[little ? size - 1 - i : i];
    }
    return x;
}

static void md5(uint64_t *state, const uint8_t *block) {
    static const uint8_t turns[16] = {7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21};
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    for (int i = 0; i < 64; i++) {
        uint32_t f = i < 16 ? (b & c) | (~b & d) : i < 32 ? (d & b) | (~d & c) : i < 48 ? b ^ c ^ d : c ^ (b | ~d);
        int at = i < 16 ? i : i < 32 ? 5 * i + 1 : i < 48 ? 3 * i + 5 : 7 * i;
        f += a + sines[i] + (uint32_t)word(block + 4 * (at & 15), 4, 1);
        a = d, d = c, c = b, b += left(f, turns[(i >> 4) * 4 + (i & 3)]);
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
}

static void sha1(uint64_t *state, const uint8_t *block) {
    static const uint32_t constants[4] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 80; i++) {
        w[i] = i < 16 ? word(block + 4 * i, 4, 0) : left(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        uint32_t f = i < 20 ? (b & c) | (~b & d) : i >= 40 && i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
        f += left(a, 5) + e + constants[i / 20] + w[i];
        e = d, d = c, c = left(b, 30), b = a, a = f;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

static void sha256(uint64_t *state, const uint8_t *block) {
    uint32_t w[64], s[8];
    for (int i = 0; i < 8; i++) {
        s[i] = state[i];
    }
    for (int i = 0; i < 64; i++) {
        w[i] = i < 16 ? word(block + 4 * i, 4, 0)
            : w[i - 16] + (right(w[i - 15], 7) ^ right(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7]
                + (right(w[i - 2], 17) ^ right(w[i - 2], 19) ^ w[i - 2] >> 10);
        uint32_t a = s[0], e = s[4];
        uint32_t one = s[7] + (right(e, 6) ^ right(e, 11) ^ right(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + (uint32_t)(cube_roots[i] >> 32) + w[i];
        uint32_t two = (right(a, 2) ^ right(a, 13) ^ right(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += one, s[0] = one + two;
    }
    for (int i = 0; i < 8; i++) {
        state[i] = (uint32_t)(state[i] + s[i]);
    }
}

static void sha512(uint64_t *state, const uint8_t *block) {
    uint64_t w[80], s[8];
    memcpy(s, state, sizeof s);
    for (int i = 0; i < 80; i++) {
        w[i] = i < 16 ? word(block + 8 * i, 8, 0)
            : w[i - 16] + (right64(w[i - 15], 1) ^ right64(w[i - 15], 8) ^ w[i - 15] >> 7) + w[i - 7]
                + (right64(w[i - 2], 19) ^ right64(w[i - 2], 61) ^ w[i - 2] >> 6);
        uint64_t a = s[0], e = s[4];
        uint64_t one = s[7] + (right64(e, 14) ^ right64(e, 18) ^ right64(e, 41)) + ((e & s[5]) ^ (~e & s[6])) + cube_roots[i] + w[i];
        uint64_t two = (right64(a, 28) ^ right64(a, 34) ^ right64(a, 39)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += one, s[0] = one + two;
    }
    for (int i = 0; i < 8; i++) {
        state[i] += s[i];
    }
}

static void add(hash *self, const uint8_t *data, size_t size) {
    static void (*const compress[])(uint64_t *, const uint8_t *) = {md5, sha1, sha256, sha256, sha512, sha512};
    size_t block = kinds[self->kind].block, used = self->size % block;
    self->size += size;
    while (size) {
        size_t part = size < block - used ? size : block - used;
        memcpy(self->block + used, data, part);
        data += part, size -= part, used += part;
        if (used == block) {
            compress[self->kind](self->state, self->block);
            used = 0;
        }
    }
}

static mp_obj_t hash_new(const mp_obj_type_t *type, size_t count, size_t names, const mp_obj_t *arguments) {
    mp_arg_check_num(count, names, 1, 1, false);
    const char *name = mp_obj_str_get_str(arguments[0]);
    for (size_t kind = 0; kind < MP_ARRAY_SIZE(kinds); kind++) {
        if (!strcmp(name, kinds[kind].name)) {
            hash *self = mp_obj_malloc(hash, type);
            self->kind = kind;
            self->size = 0;
            for (int i = 0; i < 8; i++) {
                self->state[i] = kind <= SHA1 ? (i < 5 ? small[i] : 0) : kind == SHA224 ? (uint32_t)square_roots[8 + i]
                    : kind == SHA256 ? square_roots[i] >> 32 : square_roots[(kind == SHA384 ? 8 : 0) + i];
            }
            return MP_OBJ_FROM_PTR(self);
        }
    }
    mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("unsupported hash type %s"), name);
}

static mp_obj_t hash_update(mp_obj_t self, mp_obj_t data) {
    mp_buffer_info_t info;
    if (mp_obj_is_str(data)) {
        mp_raise_TypeError(MP_ERROR_TEXT("Strings must be encoded before hashing"));
    }
    mp_get_buffer_raise(data, &info, MP_BUFFER_READ);
    add(MP_OBJ_TO_PTR(self), info.buf, info.len);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(hash_update_object, hash_update);

static mp_obj_t hash_copy(mp_obj_t self) {
    hash *new = mp_obj_malloc(hash, mp_obj_get_type(self));
    memcpy(new, MP_OBJ_TO_PTR(self), sizeof *new);
    return MP_OBJ_FROM_PTR(new);
}
static MP_DEFINE_CONST_FUN_OBJ_1(hash_copy_object, hash_copy);

static mp_obj_t hash_digest(mp_obj_t self_in) {
    hash self = *(hash *)MP_OBJ_TO_PTR(self_in);
    int little = self.kind == MD5, width = self.kind < SHA384 ? 4 : 8, length = 2 * width;
    uint64_t bits = self.size * 8;
    static const uint8_t end[128] = {0x80};
    size_t block = kinds[self.kind].block, used = self.size % block;
    add(&self, end, 1 + (2 * block - 1 - length - used) % block);
    uint8_t tail[16] = {0};
    for (int i = 0; i < 8; i++) {
        tail[little ? i : length - 1 - i] = bits >> (8 * i);
    }
    add(&self, tail, length);
    vstr_t v;
    vstr_init_len(&v, kinds[self.kind].digest);
    for (size_t i = 0; i < v.len; i++) {
        int byte = i % width;
        v.buf[i] = self.state[i / width] >> (8 * (little ? byte : width - 1 - byte));
    }
    return mp_obj_new_bytes_from_vstr(&v);
}
static MP_DEFINE_CONST_FUN_OBJ_1(hash_digest_object, hash_digest);

static void hash_attr(mp_obj_t self_in, qstr name, mp_obj_t *found) {
    hash *self = MP_OBJ_TO_PTR(self_in);
    if (found[0] != MP_OBJ_NULL) {
        return;
    }
    if (name == MP_QSTR_digest_size) {
        found[0] = MP_OBJ_NEW_SMALL_INT(kinds[self->kind].digest);
    } else if (name == MP_QSTR_block_size) {
        found[0] = MP_OBJ_NEW_SMALL_INT(kinds[self->kind].block);
    } else if (name == MP_QSTR_name) {
        found[0] = mp_obj_new_str(kinds[self->kind].name, strlen(kinds[self->kind].name));
    } else {
        found[1] = MP_OBJ_SENTINEL;
    }
}

static const mp_rom_map_elem_t methods[] = {
    {MP_ROM_QSTR(MP_QSTR_update), MP_ROM_PTR(&hash_update_object)},
    {MP_ROM_QSTR(MP_QSTR_copy), MP_ROM_PTR(&hash_copy_object)},
    {MP_ROM_QSTR(MP_QSTR_digest), MP_ROM_PTR(&hash_digest_object)},
};
static MP_DEFINE_CONST_DICT(locals, methods);
static MP_DEFINE_CONST_OBJ_TYPE(hash_type, MP_QSTR_Hash, MP_TYPE_FLAG_NONE, make_new, hash_new, attr, hash_attr, locals_dict, &locals);

static const mp_rom_map_elem_t entries[] = {
    {MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR__hash)},
    {MP_ROM_QSTR(MP_QSTR_Hash), MP_ROM_PTR(&hash_type)},
};
static MP_DEFINE_CONST_DICT(globals, entries);
const mp_obj_module_t hash_module = {.base = {&mp_type_module}, .globals = (mp_obj_dict_t *)&globals};
MP_REGISTER_MODULE(MP_QSTR__hash, hash_module);
