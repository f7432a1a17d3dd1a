/* Sums over neighbourhoods and attention within them, on a CPU; bound by in_c.py.
 *
 * The file includes itself once for each pair of a number type T (float, double) and an index type I.
 * A pattern is (R, ptr [R + 1], col [E]); the pattern of a backward is that of the transpose, where perm [E] says which
 * entry of the forward stands at each place. Every row belongs to one thread and is summed in the order of its entries,
 * so results depend neither on the number of threads nor on the run. H heads of width D; strides are H * D.
 */
#ifndef T
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define AHEAD 8 /* entries between a prefetch and its use */
#define INLINE static inline __attribute__((always_inline))
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, SUFFIX)

/* SplitMix64; see counter.py */
INLINE uint64_t mix(uint64_t seed, uint64_t n) {
    uint64_t z = seed + (n + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

INLINE uint64_t draw(uint64_t seed, uint64_t counter) {
    return mix(seed, counter / 2) >> (counter % 2 ? 8 : 40) & 0xFFFFFF;
}

/* Runs `body` with rows [first, last) of a piece of equal work; pieces go to threads as they come free. */
#define PIECES(threads) ((threads) > 1 ? 8 * (threads) : 1)

#include "samplers.c"

#define FIRST2(a, b, ...) {a, b}
#define FIRST4(a, b, c, d, ...) {a, b, c, d}
#define FIRST8(a, b, c, d, e, f, g, h, ...) {a, b, c, d, e, f, g, h}
#define FIRST16(...) {__VA_ARGS__}

#define T float
#define U int32_t
#if BYTES == 64
#define HALVES FIRST16
#elif BYTES == 32
#define HALVES FIRST8
#else
#define HALVES FIRST4
#endif
#define I int32_t
#define SUFFIX f32_i32
#include "kernels.c"
#undef I
#undef SUFFIX
#define I int64_t
#define SUFFIX f32_i64
#include "kernels.c"
#undef T
#undef U
#undef I
#undef SUFFIX
#undef HALVES
#define T double
#define U int64_t
#if BYTES == 64
#define HALVES FIRST8
#elif BYTES == 32
#define HALVES FIRST4
#else
#define HALVES FIRST2
#endif
#define I int32_t
#define SUFFIX f64_i32
#include "kernels.c"
#undef I
#undef SUFFIX
#define I int64_t
#define SUFFIX f64_i64
#include "kernels.c"

#else

#define V NAME(vec)
#define W NAME(ints)
#define L ((int64_t)(BYTES / sizeof(T)))
typedef T V __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
typedef U W __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));

/* First row of piece k of n: rows are cut where the work, entries and rows together, is equal. */
static int64_t NAME(cut)(int64_t R, const I *ptr, int64_t k, int64_t n) {
    int64_t low = 0, high = R, goal = ((int64_t)ptr[R] + R) / n * k;
    if (k == n) return R;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if ((int64_t)ptr[middle] + middle < goal) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* exp of n numbers that are at most a little above zero; x is padded to a multiple of L. */
static void NAME(exps)(T *x, int64_t n) {
    if (sizeof(T) == 8) {
        for (int64_t e = 0; e < n; e++) x[e] = exp(x[e]);
        return;
    }
    for (int64_t e = 0; e < n; e += L) { /* Cephes' expf: two units in the last place */
        V v = *(V *)(x + e), lowest = (V){0} - (T)87;
        W small = v < lowest;
        v = (V)(((W)lowest & small) | ((W)v & ~small));
        V k = v * (T)1.44269504088896341 + (T)12582912.0;
        k -= (T)12582912.0;
        V r = v - k * (T)0.693359375 + k * (T)2.12194440e-4;
        V y = r * (T)1.9875691500e-4 + (T)1.3981999507e-3;
        y = y * r + (T)8.3334519073e-3;
        y = y * r + (T)4.1665795894e-2;
        y = y * r + (T)1.6666665459e-1;
        y = y * r + (T)5.0000001201e-1;
        y = y * r * r + r + (T)1;
        W power = (__builtin_convertvector(k, W) + 127) << 23;
        v = y * (V)power;
        *(V *)(x + e) = (V)((W)v & ~small); /* below e^-87 is zero */
    }
}

/* out[0, nv * L) = sum over n entries of w * x[col[e] * stride + ...], added to what stands there if `more`.
 * w[e * H + head[v]] weighs vector v; w NULL: all weights are one. `left` entries follow col, those of later rows
 * included: `wide` bytes of theirs are fetched ahead, or what this span reads if it is negative. */
INLINE void NAME(span)(const T *x, int64_t stride, const I *col, const T *w, int64_t H, const int64_t *head, int64_t n,
                       int64_t left, T *out, int more, int64_t wide, int nv) {
    V sum[8];
    for (int v = 0; v < nv; v++) sum[v] = more ? ((V *)out)[v] : (V){0};
    for (int64_t e = 0; e < n; e++) {
        const T *from = x + col[e] * stride;
        if (wide && e + AHEAD < left) {
            const char *next = (const char *)(x + col[e + AHEAD] * stride);
            if (wide < 0)
                for (int b = 0; b < nv * BYTES; b += 64) __builtin_prefetch(next + b);
            else
                for (int64_t b = 0; b < wide; b += 64) __builtin_prefetch(next + b);
        }
        if (w && head)
            for (int v = 0; v < nv; v++) sum[v] += w[e * H + head[v]] * ((const V *)from)[v];
        else if (w) {
            T s = w[e * H];
            for (int v = 0; v < nv; v++) sum[v] += s * ((const V *)from)[v];
        } else
            for (int v = 0; v < nv; v++) sum[v] += ((const V *)from)[v];
    }
    for (int v = 0; v < nv; v++) ((V *)out)[v] = sum[v];
}

/* The columns [0, F) of the same; F is a multiple of L, and `heads` says which head each of its vectors belongs to. */
static void NAME(columns)(const T *x, int64_t stride, const I *col, const T *w, int64_t H, const int64_t *heads,
                          int64_t n, int64_t left, int64_t F, T *out) {
    /* few enough entries at a time that their rows stay in the first cache from one span to the next */
    int64_t bytes = F * (int64_t)sizeof(T), group = bytes > 8192 ? 2 : 16384 / (bytes ? bytes : 1);
    for (int64_t e = 0; e == 0 || e < n; e += group) {
        int64_t m = n - e < group ? n - e : group, f = 0, v = 0;
        int more = e > 0;
#define SPAN(wide, nv)                                                                                        \
    NAME(span)(x + f, stride, col + e, w ? w + e * H : NULL, H, heads ? heads + v : NULL, m, left - e, out + f, \
               more, wide, nv),                                                                               \
        f += nv * L, v += nv
        if (F > 8 * L) {
            SPAN(bytes, 8);
            while (f + 8 * L <= F) SPAN(0, 8);
            if (f + 4 * L <= F) SPAN(0, 4);
            if (f + 2 * L <= F) SPAN(0, 2);
            if (f + L <= F) SPAN(0, 1);
        } else {
            if (f + 8 * L <= F) SPAN(-1, 8);
            if (f + 4 * L <= F) SPAN(-1, 4);
            if (f + 2 * L <= F) SPAN(-1, 2);
            if (f + L <= F) SPAN(-1, 1);
        }
#undef SPAN
    }
}

/* out [H, D] = sum over n entries of w[e * H + h] * x[col[e], h]; w NULL: all weights are one. */
static void NAME(total)(const T *x, const I *col, const T *w, int64_t n, int64_t left, int64_t H, int64_t D,
                        const int64_t *heads, T *out) {
    int64_t F = H * D, whole = F / L * L;
    if (!w || H == 1 || heads) {
        NAME(columns)(x, F, col, w, H, w && H > 1 ? heads : NULL, n, left, whole, out);
        for (int64_t f = whole; f < F; f++) {
            T sum = 0;
            for (int64_t e = 0; e < n; e++) sum += (w ? w[e * H + f / D] : 1) * x[col[e] * F + f];
            out[f] = sum;
        }
        return;
    }
    whole = D / L * L;
    for (int64_t h = 0; h < H; h++) {
        NAME(columns)(x + h * D, F, col, w + h, H, NULL, n, left, whole, out + h * D);
        for (int64_t d = whole; d < D; d++) {
            T sum = 0;
            for (int64_t e = 0; e < n; e++) sum += w[e * H + h] * x[col[e] * F + h * D + d];
            out[h * D + d] = sum;
        }
    }
}

/* The head of each vector of a row, if every vector has one; else NULL. */
static const int64_t *NAME(heads_of)(int64_t H, int64_t D) {
    if (H == 1 || D % L) return NULL;
    int64_t *heads = malloc((size_t)(H * D / L) * sizeof(int64_t));
    for (int64_t v = 0; v < H * D / L; v++) heads[v] = v * L / D;
    return heads;
}

INLINE T NAME(across)(V v) {
#ifdef __clang__
    T sum = 0;
    for (int64_t l = 0; l < L; l++) sum += v[l];
    return sum;
#else
#define FLIP(l, half) ((l) ^ (half))
#define OTHER(half)                                                                                        \
    (W)HALVES(FLIP(0, half), FLIP(1, half), FLIP(2, half), FLIP(3, half), FLIP(4, half), FLIP(5, half),     \
              FLIP(6, half), FLIP(7, half), FLIP(8, half), FLIP(9, half), FLIP(10, half), FLIP(11, half),   \
              FLIP(12, half), FLIP(13, half), FLIP(14, half), FLIP(15, half))
    if (L > 8) v += __builtin_shuffle(v, OTHER(8));
    if (L > 4) v += __builtin_shuffle(v, OTHER(4));
    if (L > 2) v += __builtin_shuffle(v, OTHER(2));
    v += __builtin_shuffle(v, OTHER(1));
    return v[0];
#undef OTHER
#undef FLIP
#endif
}

INLINE T NAME(dot)(const T *a, const T *b, int64_t D) {
    V one = {0}, two = {0};
    int64_t d = 0;
    for (; d + 2 * L <= D; d += 2 * L) {
        one += *(const V *)(a + d) * *(const V *)(b + d);
        two += *(const V *)(a + d + L) * *(const V *)(b + d + L);
    }
    if (d + L <= D) one += *(const V *)(a + d) * *(const V *)(b + d), d += L;
    T out = NAME(across)(one + two);
    for (; d < D; d++) out += a[d] * b[d];
    return out;
}

#define FOR_PIECES \
    _Pragma("omp parallel for schedule(dynamic, 1) num_threads(threads)") \
    for (int64_t piece = 0; piece < PIECES(threads); piece++)
#define FOR_ROWS(r) \
    for (int64_t r = NAME(cut)(R, ptr, piece, PIECES(threads)), last = NAME(cut)(R, ptr, piece + 1, PIECES(threads)); \
         r < last; r++)

/* Room for `count` numbers a head of the longest row of a piece, padded so that vectors may overrun. */
static T *NAME(room)(T *old, int64_t *have, int64_t need) {
    if (old && need <= *have) return old;
    *have = need > 2 * *have ? need : 2 * *have;
    free(old);
    return malloc((size_t)(*have + 2 * L) * sizeof(T));
}

/* out [R, H, D]; as all that need room for the longest row, it returns whether memory ran out */
int NAME(spmm)(int threads, int64_t R, const I *ptr, const I *col, int64_t H, int64_t D, const T *x, const T *w,
               const I *perm, T *out) {
    int failed = 0;
    const int64_t *heads = NAME(heads_of)(H, D);
    FOR_PIECES {
        T *buffer = NULL;
        int64_t have = 0;
        FOR_ROWS(r) {
            int64_t at = ptr[r], n = ptr[r + 1] - at;
            const T *weights = w ? w + at * H : NULL;
            if (w && perm) {
                weights = buffer = NAME(room)(buffer, &have, n * H);
                if (!buffer) {
                    failed = 1;
                    break;
                }
                for (int64_t e = 0; e < n; e++)
                    for (int64_t h = 0; h < H; h++) buffer[e * H + h] = w[perm[at + e] * H + h];
            }
            NAME(total)(x, col + at, weights, n, ptr[R] - at, H, D, heads, out + r * H * D);
        }
        free(buffer);
    }
    free((void *)heads);
    return failed;
}

/* out [E, H]: inner products of a [R, H, D] and b [C, H, D] at the entries */
void NAME(sddmm)(int threads, int64_t R, const I *ptr, const I *col, int64_t H, int64_t D, const T *a, const T *b,
                 const I *perm, T *out) {
    FOR_PIECES FOR_ROWS(r) for (int64_t e = ptr[r]; e < ptr[r + 1]; e++) {
        if (e + 4 < ptr[R]) {
            const char *next = (const char *)(b + col[e + 4] * H * D);
            for (int64_t p = 0; p < H * D * (int64_t)sizeof(T) && p < 2048; p += 64) __builtin_prefetch(next + p);
        }
        for (int64_t h = 0; h < H; h++)
            out[(perm ? perm[e] : e) * H + h] = NAME(dot)(a + (r * H + h) * D, b + (col[e] * H + h) * D, D);
    }
}

/* The largest w * x of each row and the first entry that has it; rows without entries: 0 and E. F = H * D. */
void NAME(spmm_max)(int threads, int64_t R, const I *ptr, const I *col, int64_t H, int64_t D, const T *x, const T *w,
                    T *out, I *place) {
    FOR_PIECES FOR_ROWS(r) for (int64_t h = 0; h < H; h++) for (int64_t d = 0; d < D; d += L) {
        int64_t at = ptr[r], n = ptr[r + 1] - at, wide = D - d < L ? D - d : L, to = (r * H + h) * D + d;
        V best = {0};
        W first = {0};
        for (int64_t e = 0; e < n; e++) {
            const T *from = x + (col[at + e] * H + h) * D + d;
            V value = {0};
            if (wide == L) value = *(const V *)from;
            else
                for (int64_t l = 0; l < wide; l++) value[l] = from[l];
            if (w) value *= w[(at + e) * H + h];
            W better = (value > best) | ((value != value) & (best == best)); /* a NaN shows */
            if (e == 0) better = ~(W){0};
            best = (V)(((W)value & better) | ((W)best & ~better));
            first = (((W){0} + (U)e) & better) | (first & ~better);
        }
        for (int64_t l = 0; l < wide; l++) out[to + l] = best[l], place[to + l] = n ? (I)(at + first[l]) : ptr[R];
    }
}

/* On the transpose: to_x [R, H, D], and to_w [E, H] unless NULL. */
void NAME(spmm_max_back)(int threads, int64_t R, const I *ptr, const I *col, int64_t H, int64_t D, const T *grad,
                         const I *place, const T *x, const T *w, const I *perm, T *to_x, T *to_w) {
    FOR_PIECES FOR_ROWS(r) for (int64_t h = 0; h < H; h++) {
        int64_t at = ptr[r], n = ptr[r + 1] - at, own = (r * H + h) * D;
        for (int64_t e = at; to_w && e < at + n; e++) to_w[perm[e] * H + h] = 0;
        for (int64_t d = 0; d < D; d += L) {
            int64_t wide = D - d < L ? D - d : L;
            V sum = {0}, mine = {0};
            for (int64_t l = 0; l < wide; l++) mine[l] = x[own + d + l];
            for (int64_t e = at; e < at + n; e++) {
                I here = perm[e];
                int64_t from = (col[e] * H + h) * D + d;
                V g = {0};
                W first = {0};
                if (wide == L && sizeof(I) == sizeof(U)) g = *(const V *)(grad + from), first = *(const W *)(place + from);
                else
                    for (int64_t l = 0; l < wide; l++) g[l] = grad[from + l], first[l] = (U)place[from + l];
                g = (V)((W)g & (W)(first == (U)here));
                sum += (w ? w[here * H + h] : 1) * g;
                if (to_w) to_w[here * H + h] += NAME(across)(g * mine);
            }
            for (int64_t l = 0; l < wide; l++) to_x[own + d + l] = sum[l];
        }
    }
}

/* Scores [n, H] to weights that sum to one in each head: exp(s - top) * part, with top and part [H]. */
static void NAME(normalise)(T *s, int64_t n, int64_t H, T *top, T *part) {
    if (n == 0) {
        for (int64_t h = 0; h < H; h++) top[h] = 0, part[h] = 1;
        return;
    }
    for (int64_t h = 0; h < H; h++) {
        T best = s[h];
        for (int64_t e = 1; e < n; e++) best = s[e * H + h] > best ? s[e * H + h] : best;
        top[h] = best == -INFINITY ? 0 : best;
    }
    for (int64_t e = 0; e < n; e++)
        for (int64_t h = 0; h < H; h++) s[e * H + h] -= top[h];
    NAME(exps)(s, n * H);
    for (int64_t h = 0; h < H; h++) {
        T all = 0;
        for (int64_t e = 0; e < n; e++) all += s[e * H + h];
        T share = part[h] = all == 0 ? 0 : 1 / all; /* where all scores are -inf, the weights are zero */
        for (int64_t e = 0; e < n; e++) s[e * H + h] *= share;
    }
}

/* out [E, H] */
int NAME(softmax)(int threads, int64_t R, const I *ptr, int64_t H, const T *scores, T *out) {
    int failed = 0;
    FOR_PIECES {
        T *s = NULL;
        int64_t have = 0;
        FOR_ROWS(r) {
            int64_t at = ptr[r] * H, n = ptr[r + 1] - ptr[r];
            s = NAME(room)(s, &have, (n + 2) * H + L);
            if (!s) {
                failed = 1;
                break;
            }
            for (int64_t k = 0; k < n * H; k++) s[k] = scores[at + k];
            NAME(normalise)(s, n, H, s + n * H + L, s + (n + 1) * H + L);
            for (int64_t k = 0; k < n * H; k++) out[at + k] = s[k];
        }
        free(s);
    }
    return failed;
}

void NAME(softmax_back)(int threads, int64_t R, const I *ptr, int64_t H, const T *weights, const T *grad, T *out) {
    FOR_PIECES FOR_ROWS(r) for (int64_t h = 0; h < H; h++) {
        T sum = 0;
        for (int64_t e = ptr[r]; e < ptr[r + 1]; e++) sum += weights[e * H + h] * grad[e * H + h];
        for (int64_t e = ptr[r]; e < ptr[r + 1]; e++) out[e * H + h] = weights[e * H + h] * (grad[e * H + h] - sum);
    }
}

/* sum of a * leaky(x + y) */
INLINE T NAME(leaky_dot)(const T *x, const T *y, const T *a, T slope, int64_t D) {
    V sum = {0};
    int64_t d = 0;
    for (; d + L <= D; d += L) {
        V v = *(const V *)(x + d) + *(const V *)(y + d), scaled = v * slope;
        W above = v > (V){0};
        sum += *(const V *)(a + d) * (V)(((W)v & above) | ((W)scaled & ~above));
    }
    T out = NAME(across)(sum);
    for (; d < D; d++) {
        T v = x[d] + y[d];
        out += a[d] * (v > 0 ? v : slope * v);
    }
    return out;
}

/* How an edge from column j to row i is scored; widths: K of keys, D of values.
 * GAT: leaky(source[j] + target[i]), both [*, H].
 * V2: <attention, leaky(key[j] + query[i])>. QKV: slope * <query[i], key[j]> + bias[e]. */
enum NAME(modes) { NAME(GAT) = 0, NAME(V2) = 1, NAME(QKV) = 2 };
#define GAT NAME(GAT)
#define V2 NAME(V2)
#define QKV NAME(QKV)
typedef struct {
    int64_t mode, H, K, D;
    const T *key, *query, *attention, *bias; /* GAT: key and query are source and target */
    const T *value;
    double slope, drop;
    uint64_t seed;
} NAME(Heads);

/* s [H]: the scores of entry e from column j to row i; of GAT's what is to go through `leaky` */
INLINE void NAME(score)(const NAME(Heads) * a, int64_t i, int64_t j, int64_t e, T *s) {
    int64_t H = a->H, K = a->K;
    if (a->mode == GAT) {
        const T *source = a->key + j * H, *target = a->query + i * H;
        for (int64_t h = 0; h < H; h++) s[h] = source[h] + target[h];
        return;
    }
    const T *key = a->key + j * H * K, *query = a->query + i * H * K;
    for (int64_t h = 0; h < H; h++, key += K, query += K)
        if (a->mode == V2) s[h] = NAME(leaky_dot)(key, query, a->attention + h * K, (T)a->slope, K);
        else s[h] = (T)a->slope * NAME(dot)(query, key, K) + (a->bias ? a->bias[e * H + h] : 0);
}

/* a where x is above zero, else b; in each place */
INLINE V NAME(where)(V x, V a, V b) {
    W above = x > (V){0};
    return (V)(((W)a & above) | ((W)b & ~above));
}

/* s[0, n) = leaky(s); s is padded to a multiple of L */
INLINE void NAME(leaky)(T *s, int64_t n, T slope) {
    for (int64_t e = 0; e < n; e += L) {
        V v = *(V *)(s + e);
        *(V *)(s + e) = NAME(where)(v, v, v * slope);
    }
}

/* keep [H]: what dropout leaves of entry e, 0 or 1 / (1 - p) */
INLINE void NAME(kept)(const NAME(Heads) * a, int64_t e, T *keep) {
    uint64_t below = (uint64_t)(a->drop * 16777216.0 + 0.5);
    T scale = (T)(1 / (1 - a->drop));
    if (a->H % 2)
        for (int64_t h = 0; h < a->H; h++) keep[h] = draw(a->seed, (uint64_t)(e * a->H + h)) < below ? 0 : scale;
    else
        for (int64_t h = 0; h < a->H; h += 2) { /* one mix is two draws */
            uint64_t z = mix(a->seed, (uint64_t)(e * a->H + h) / 2);
            keep[h] = z >> 40 < below ? 0 : scale;
            keep[h + 1] = (z >> 8 & 0xFFFFFF) < below ? 0 : scale;
        }
}

INLINE void NAME(fetch)(const T *row, int64_t width) {
    for (int64_t b = 0; b < width * (int64_t)sizeof(T); b += 64) __builtin_prefetch((const char *)row + b);
}

/* out [R, H, D], and of the softmax in each row and head the largest score and one over the sum, top and part
 * [R, H]: apart, since their one logarithm would lose the sum beside a large score */
int NAME(attend)(int threads, int64_t R, const I *ptr, const I *col, const NAME(Heads) * given, T *out, T *top,
                 T *part) {
    int failed = 0;
    const NAME(Heads) here = *given, *a = &here;
    int64_t H = a->H, D = a->D, K = a->K;
    const int64_t *heads = NAME(heads_of)(H, D);
    FOR_PIECES {
        T *s = NULL;
        int64_t have = 0;
        FOR_ROWS(i) {
            int64_t at = ptr[i], n = ptr[i + 1] - at;
            s = NAME(room)(s, &have, (2 * n + 1) * H + 2 * L);
            if (!s) {
                failed = 1;
                break;
            }
            T *keep = s + n * H + L;
            for (int64_t e = 0; e < n; e++) {
                if (at + e + AHEAD < ptr[R]) NAME(fetch)(a->key + col[at + e + AHEAD] * H * K, H * K);
                NAME(score)(a, i, col[at + e], at + e, s + e * H);
            }
            if (a->mode == GAT) NAME(leaky)(s, n * H, (T)a->slope);
            NAME(normalise)(s, n, H, top + i * H, part + i * H);
            if (a->drop > 0) {
                for (int64_t e = 0; e < n; e++) NAME(kept)(a, at + e, keep + e * H);
                for (int64_t e = 0; e < n * H; e++) s[e] *= keep[e];
            }
            NAME(total)(a->value, col + at, s, n, ptr[R] - at, H, D, heads, out + i * H * D);
        }
        free(s);
    }
    free((void *)heads);
    return failed;
}

/* to[0, K) += s * attention * leaky'(x + y), and unless NULL part[0, K) += s * leaky(x + y) */
INLINE void NAME(leaky_back)(T s, const T *x, const T *y, const T *attention, T slope, int64_t K, T *to, T *part) {
    V one = (V){0} + s, bent = (V){0} + s * slope;
    int64_t d = 0;
    for (; d + L <= K; d += L) {
        V v = *(const V *)(x + d) + *(const V *)(y + d);
        W above = v > (V){0};
        V bend = (V)(((W)one & above) | ((W)bent & ~above));
        *(V *)(to + d) += bend * *(const V *)(attention + d);
        if (part) *(V *)(part + d) += bend * v;
    }
    for (; d < K; d++) {
        T v = x[d] + y[d], bend = v > 0 ? s : s * slope;
        to[d] += bend * attention[d];
        if (part) part[d] += bend * v;
    }
}

/* delta [R, H]: inner products of a and b [R, H, D] */
void NAME(inner)(int threads, int64_t R, int64_t H, int64_t D, const T *a, const T *b, T *delta) {
    _Pragma("omp parallel for schedule(static) num_threads(threads)")
    for (int64_t r = 0; r < R * H; r++) delta[r] = NAME(dot)(a + r * D, b + r * D, D);
}

/* On the transpose, a row being a source j. delta [*, H] is <grad, out> of each target.
 * to_scores [E, H] in the forward's order; to_value [R, H, D]; to_key [R, H] (GAT) or [R, H, K]. */
int NAME(attend_back)(int threads, int64_t R, const I *ptr, const I *col, const I *perm, const NAME(Heads) * given,
                      const T *grad, const T *top, const T *part, const T *delta, T *to_scores, T *to_value, T *to_key) {
    int failed = 0;
    const NAME(Heads) here = *given, *a = &here;
    int64_t H = a->H, D = a->D, K = a->K;
    const int64_t *heads = NAME(heads_of)(H, D), *key_heads = NAME(heads_of)(H, K);
    FOR_PIECES {
        T *s = NULL;
        int64_t have = 0;
        FOR_ROWS(j) {
            int64_t at = ptr[j], n = ptr[j + 1] - at, size = n * H + L;
            s = NAME(room)(s, &have, 4 * size);
            if (!s) {
                failed = 1;
                break;
            }
            T *ds = s + size, *keep = ds + size, *inner = keep + size;
            const T *value = a->value + j * H * D;
            const I *i = col + at;
            T slope = a->mode == GAT ? (T)a->slope : 1;
            for (int64_t e = 0; e < n; e++) {
                NAME(score)(a, i[e], j, perm[at + e], ds + e * H);
                for (int64_t h = 0; h < H; h++) s[e * H + h] = top[i[e] * H + h];
            }
            for (int64_t e = 0; e < n * H; e += L) {
                V v = *(V *)(ds + e);
                *(V *)(s + e) = NAME(where)(v, v, v * slope) - *(V *)(s + e);
            }
            NAME(exps)(s, n * H);
            for (int64_t e = 0; e < n; e++)
                for (int64_t h = 0; h < H; h++) s[e * H + h] *= part[i[e] * H + h];
            if (a->drop > 0)
                for (int64_t e = 0; e < n; e++) NAME(kept)(a, perm[at + e], keep + e * H);
            for (int64_t e = 0; e < n; e++) {
                if (at + e + 4 < ptr[R]) NAME(fetch)(grad + i[e + 4] * H * D, H * D);
                const T *from = grad + i[e] * H * D;
                for (int64_t h = 0; h < H; h++) inner[e * H + h] = NAME(dot)(from + h * D, value + h * D, D);
            }
            if (a->drop > 0)
                for (int64_t e = 0; e < n * H; e++) inner[e] *= keep[e];
            for (int64_t e = 0; e < n; e++)
                for (int64_t h = 0; h < H; h++) inner[e * H + h] -= delta[i[e] * H + h];
            for (int64_t e = 0; e < n * H; e += L) { /* leaky keeps the sign */
                V v = *(V *)(ds + e), one = (V){0} + 1;
                *(V *)(ds + e) = NAME(where)(v, one, one * slope) * *(V *)(s + e) * *(V *)(inner + e);
            }
            for (int64_t e = 0; e < n; e++)
                for (int64_t h = 0; h < H; h++) to_scores[perm[at + e] * H + h] = ds[e * H + h];
            if (a->drop > 0)
                for (int64_t e = 0; e < n * H; e++) s[e] *= keep[e];
            NAME(total)(grad, i, s, n, n, H, D, heads, to_value + j * H * D);
            T *to = to_key + j * H * K;
            if (a->mode == QKV) {
                NAME(total)(a->query, i, ds, n, ptr[R] - at, H, K, key_heads, to);
                for (int64_t f = 0; f < H * K; f++) to[f] *= (T)a->slope;
                continue;
            }
            for (int64_t f = 0; f < H * K; f++) to[f] = 0;
            for (int64_t e = 0; e < n; e++)
                for (int64_t h = 0; h < H; h++)
                    if (a->mode == GAT) to[h] += ds[e * H + h];
                    else
                        NAME(leaky_back)(ds[e * H + h], a->key + (j * H + h) * K, a->query + (i[e] * H + h) * K,
                                         a->attention + h * K, (T)a->slope, K, to + h * K, NULL);
        }
        free(s);
    }
    free((void *)heads);
    free((void *)key_heads);
    return failed;
}

/* On the pattern itself: to_query [R, H] (GAT) or [R, H, K] from to_scores [E, H].
 * V2: to_attention [blocks, H, K], the rows cut in blocks so that the order of the sum is fixed. */
void NAME(attend_back_rows)(int threads, int64_t R, const I *ptr, const I *col, const NAME(Heads) * a,
                            const T *to_scores, T *to_query, int64_t blocks, T *to_attention) {
    int64_t H = a->H, K = a->K;
    if (a->mode == GAT) {
        FOR_PIECES FOR_ROWS(i) {
            T *to = to_query + i * H;
            for (int64_t h = 0; h < H; h++) to[h] = 0;
            for (int64_t e = ptr[i]; e < ptr[i + 1]; e++)
                for (int64_t h = 0; h < H; h++) to[h] += to_scores[e * H + h];
        }
    } else if (a->mode == QKV) {
        const int64_t *heads = NAME(heads_of)(H, K);
        FOR_PIECES FOR_ROWS(i) {
            T *to = to_query + i * H * K;
            NAME(total)(a->key, col + ptr[i], to_scores + ptr[i] * H, ptr[i + 1] - ptr[i],
                        ptr[R] - ptr[i], H, K, heads, to);
            for (int64_t f = 0; f < H * K; f++) to[f] *= (T)a->slope;
        }
        free((void *)heads);
    } else {
        for (int64_t f = 0; f < blocks * H * K; f++) to_attention[f] = 0;
        for (int64_t f = 0; f < R * H * K; f++) to_query[f] = 0;
        _Pragma("omp parallel for schedule(dynamic, 1) num_threads(threads)")
        for (int64_t block = 0; block < blocks; block++)
            for (int64_t i = NAME(cut)(R, ptr, block, blocks); i < NAME(cut)(R, ptr, block + 1, blocks); i++)
                for (int64_t e = ptr[i]; e < ptr[i + 1]; e++)
                    for (int64_t h = 0; h < H; h++)
                        NAME(leaky_back)(to_scores[e * H + h], a->key + (col[e] * H + h) * K,
                                         a->query + (i * H + h) * K, a->attention + h * K, (T)a->slope, K,
                                         to_query + (i * H + h) * K, to_attention + (block * H + h) * K);
    }
}

/* out [count] = 0 or `scale`, by the draws of counter.py */
void NAME(keep)(int threads, int64_t count, uint64_t seed, uint64_t below, double scale, T *out) {
    _Pragma("omp parallel for schedule(static) num_threads(threads)")
    for (int64_t n = 0; n < count / 2; n++) {
        uint64_t z = mix(seed, (uint64_t)n);
        out[2 * n] = (int64_t)(z >> 40) < (int64_t)below ? 0 : (T)scale;
        out[2 * n + 1] = (int64_t)(z >> 8 & 0xFFFFFF) < (int64_t)below ? 0 : (T)scale;
    }
    if (count % 2) out[count - 1] = draw(seed, (uint64_t)count - 1) < below ? 0 : (T)scale;
}

/* sums [3, M] of a * b, a * a and b * b over the columns of each row */
void NAME(cosine)(int threads, int64_t M, int64_t D, const T *a, const T *b, T *sums) {
    _Pragma("omp parallel for schedule(static) num_threads(threads)")
    for (int64_t r = 0; r < M; r++) {
        const T *one = a + r * D, *two = b + r * D;
        V ab = {0}, aa = {0}, bb = {0};
        int64_t d = 0;
        for (; d + L <= D; d += L) {
            V p = *(const V *)(one + d), q = *(const V *)(two + d);
            ab += p * q, aa += p * p, bb += q * q;
        }
        T s[3] = {NAME(across)(ab), NAME(across)(aa), NAME(across)(bb)};
        for (; d < D; d++) s[0] += one[d] * two[d], s[1] += one[d] * one[d], s[2] += two[d] * two[d];
        for (int k = 0; k < 3; k++) sums[k * M + r] = s[k];
    }
}

/* out [M, D] = a * along + b * across, both [M] */
void NAME(cosine_back)(int threads, int64_t M, int64_t D, const T *a, const T *b, const T *along, const T *across,
                       T *out) {
    _Pragma("omp parallel for schedule(static) num_threads(threads)")
    for (int64_t r = 0; r < M; r++) {
        const T *one = a + r * D, *two = b + r * D;
        T p = along[r], q = across[r], *to = out + r * D;
        _Pragma("GCC ivdep") for (int64_t d = 0; d < D; d++) to[d] = p * one[d] + q * two[d];
    }
}

#undef V
#undef W
#undef L
#undef GAT
#undef V2
#undef QKV
#undef FOR_PIECES
#undef FOR_ROWS
#endif
