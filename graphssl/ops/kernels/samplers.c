/* Draws from one graph, on a CPU; part of kernels.c, bound by in_c.py.
 *
 * A graph of N nodes is ptr [N + 1] and col [E], whose rows ascend; the file includes itself once for each type I of
 * col. Both may lie in mapped files: no call passes over the whole of either, nor runs on more than its own thread.
 * `map` [N] holds zeros before and after what a call of in_c.py does, so that it costs what is touched.
 */
#ifndef I
#include <string.h>

#define BROKEN (-1) /* returned where ptr and col are no pattern */
#define FULL (-2)   /* returned where memory runs out */
#define BLOCK 64    /* nodes whose rows are fetched before the first of them is read */
#define SOON 16     /* numbers between a prefetch in `map` or `ptr` and its use */

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Puts `value` in its place among the k ascending `ranks`. */
INLINE void insert(int64_t *ranks, int64_t k, int64_t at, int64_t value) {
    for (int64_t j = k; j > at; j--) ranks[j] = ranks[j - 1];
    ranks[at] = value;
}

INLINE int64_t below(const int64_t *ranks, int64_t k, int64_t value) {
    int64_t at = 0;
    for (int64_t j = 0; j < k; j++) at += ranks[j] < value;
    return at;
}

/* Which `count` of the entries 0 to degree - 1 are drawn, ascending; as _ranks in sample.py. */
INLINE void ranks_of(int64_t degree, int64_t count, int64_t replace, const double *uniform, int64_t *ranks) {
    for (int64_t k = 0; k < count; k++) {
        int64_t last = replace ? degree - 1 : degree - count + k, drawn = (int64_t)(uniform[k] * (double)(last + 1));
        int64_t at = below(ranks, k, drawn);
        if (!replace && at < k && ranks[at] == drawn) ranks[k] = last; /* larger than all before it */
        else insert(ranks, k, at, drawn);
    }
}

/* Sorts n ids below N by 11 of their bits at a time; returns whether memory sufficed. */
static int sort_ids(int64_t n, int64_t N, int64_t *ids) {
    int64_t *from = ids, *to = malloc((size_t)(n + 1) * sizeof(int64_t)), *room = to;
    if (!room) return 0;
    for (int shift = 0; (N - 1) >> shift > 0 && n > 1; shift += 11) {
        int64_t start[2049] = {0};
        for (int64_t i = 0; i < n; i++) start[(from[i] >> shift & 2047) + 1]++;
        for (int64_t d = 0; d < 2048; d++) start[d + 1] += start[d];
        for (int64_t i = 0; i < n; i++) to[start[from[i] >> shift & 2047]++] = from[i];
        int64_t *swap = from;
        from = to, to = swap;
    }
    if (from != ids) memcpy(ids, from, (size_t)n * sizeof(int64_t));
    free(room);
    return 1;
}

/* Where the draws of each of S seeds end, ends [S + 1]; a fanout of -1 is all. Returns their number. */
int64_t ends(const int64_t *ptr, int64_t E, int64_t S, const int64_t *seeds, int64_t fanout, int64_t replace,
             int64_t *ends) {
    ends[0] = 0;
    for (int64_t s = 0; s < S; s++) {
        if (s + SOON < S) __builtin_prefetch(ptr + seeds[s + SOON]);
        int64_t begin = ptr[seeds[s]], end = ptr[seeds[s] + 1], degree = end - begin;
        if (begin < 0 || degree < 0 || end > E) return BROKEN;
        ends[s + 1] = ends[s] + (fanout < 0 ? degree : replace ? fanout * (degree > 0) : least(degree, fanout));
    }
    return ends[S];
}

/* A node that mass has reached: what it kept and what is left to push, times the probability of a restart. */
typedef struct {
    int64_t node, begin, degree, next; /* next of those that wait; -1: the last, -2: does not wait */
    double kept, left;
} Reached;

/* Whether a comes after b: by what it has, then by its id. */
INLINE int after(const Reached *a, const Reached *b) {
    return a->kept < b->kept || (a->kept == b->kept && a->node > b->node);
}

/* Moves the entry at `at` of a heap, whose top comes after all others, down to its place. */
static void sink(const Reached *all, int64_t *heap, int64_t n, int64_t at) {
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && after(all + heap[child + 1], all + heap[child])) child++;
        if (!after(all + heap[child], all + heap[at])) return;
        int64_t swap = heap[at];
        heap[at] = heap[child], heap[child] = swap;
    }
}

#define I int32_t
#define SUFFIX i32
#include "samplers.c"
#undef I
#undef SUFFIX
#define I int64_t
#define SUFFIX i64
#include "samplers.c"
#undef I
#undef SUFFIX

#else

/* place, source [ends[S]]: where the entries drawn for each seed stand and what they hold, by draws uniform [S, fanout],
 * which are not read where `uniform` is NULL: all entries */
int64_t NAME(neighbors)(const int64_t *ptr, const I *col, int64_t S, const int64_t *seeds, int64_t fanout,
                        int64_t replace, const double *uniform, const int64_t *ends, int64_t *place, I *source) {
    for (int64_t first = 0; first < S; first += BLOCK) {
        int64_t last = least(first + BLOCK, S);
        for (int64_t s = first; s < last; s++) {
            if (s + SOON < S) __builtin_prefetch(ptr + seeds[s + SOON]);
            int64_t begin = ptr[seeds[s]], degree = ptr[seeds[s] + 1] - begin, count = ends[s + 1] - ends[s];
            int64_t *to = place + ends[s];
            if (!uniform || (!replace && count == degree))
                for (int64_t k = 0; k < count; k++) to[k] = k;
            else
                ranks_of(degree, count, replace, uniform + s * fanout, to);
            for (int64_t k = 0; k < count; k++) {
                to[k] += begin;
                __builtin_prefetch(col + to[k]);
            }
        }
        for (int64_t e = ends[first]; e < ends[last]; e++) source[e] = col[place[e]];
    }
    return 0;
}

/* fresh [n]: the ids among n of `source` that `map` does not know yet, ascending; it knows them then.
 * Returns their number. */
int64_t NAME(meet)(int64_t N, int32_t *map, int64_t n, const I *source, int64_t *fresh) {
    int64_t count = 0;
    for (int64_t e = 0; e < n; e++) {
        if (e + SOON < n) __builtin_prefetch(map + source[e + SOON], 1);
        int64_t v = source[e];
        if (v < 0 || v >= N) return BROKEN;
        fresh[count] = v;
        count += !map[v];
        map[v] = 1;
    }
    return sort_ids(count, N, fresh) ? count : FULL;
}

/* Of n nodes that were met, the first T of which had draws `ends` [T + 1]: nodes [n] in order, edges [2, ends[T]] by
 * target among these and where they stand, place; leaves `local` [n] of each that was met, and zeros in `map`. */
int64_t NAME(assemble)(int64_t N, int32_t *map, int64_t n, const int64_t *met, int64_t T, const int64_t *ends,
                       const I *source, const int64_t *drawn, int64_t *nodes, int64_t *local, int64_t *edges,
                       int64_t *place) {
    int64_t E = ends[T], *start = calloc((size_t)n + 1, sizeof(int64_t));
    memcpy(nodes, met, (size_t)n * sizeof(int64_t));
    if (!start || !sort_ids(n, N, nodes)) {
        free(start);
        return FULL;
    }
    for (int64_t i = 0; i < n; i++) {
        if (i + SOON < n) __builtin_prefetch(map + nodes[i + SOON], 1);
        map[nodes[i]] = (int32_t)i;
    }
    for (int64_t t = 0; t < n; t++) {
        if (t + SOON < n) __builtin_prefetch(map + met[t + SOON]);
        local[t] = map[met[t]];
        if (t < T) start[local[t] + 1] = ends[t + 1] - ends[t];
    }
    for (int64_t i = 0; i < n; i++) start[i + 1] += start[i];
    for (int64_t t = 0; t < T; t++) {
        int64_t at = start[local[t]];
        for (int64_t e = ends[t]; e < ends[t + 1]; e++, at++) {
            if (e + SOON < E) __builtin_prefetch(map + source[e + SOON]);
            edges[at] = map[source[e]], edges[E + at] = local[t], place[at] = drawn[e];
        }
    }
    for (int64_t i = 0; i < n; i++) map[nodes[i]] = 0;
    free(start);
    return E;
}

/* First of the entries from `low` on, before `high`, that is not below v. */
INLINE int64_t NAME(find)(const I *col, int64_t low, int64_t high, int64_t v) {
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (col[middle] < v) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* The number of edges among M ascending nodes; a second call, to `fill`, writes these edges [2, E] and places [E] in order
 * of target and place, and `map` holds zeros again. A row much longer than all nodes is searched for each of them. */
int64_t NAME(induced)(int64_t N, const int64_t *ptr, const I *col, int64_t entries, int32_t *map, int64_t M,
                      const int64_t *nodes, int64_t fill, int64_t E, int64_t *edges, int64_t *place) {
    int64_t at = 0;
    for (int64_t m = 0; m < M && !fill; m++) {
        if (m + SOON < M) __builtin_prefetch(map + nodes[m + SOON], 1);
        map[nodes[m]] = (int32_t)(m + 1);
    }
    for (int64_t m = 0; m < M; m++) {
        if (m + SOON < M) __builtin_prefetch(ptr + nodes[m + SOON]);
        if (m + 4 < M) __builtin_prefetch(col + ptr[nodes[m + 4]]);
        int64_t begin = ptr[nodes[m]], end = ptr[nodes[m] + 1];
        if (begin < 0 || end < begin || end > entries) return BROKEN;
        if (end - begin > 32 * M) {
            for (int64_t k = 0, e = begin; k < M && e < end; k++) {
                e = NAME(find)(col, e, end, nodes[k]);
                for (; e < end && col[e] == nodes[k]; e++, at++)
                    if (fill) edges[at] = k, edges[E + at] = m, place[at] = e;
            }
            continue;
        }
        for (int64_t e = begin; e < end; e++) {
            if (e + SOON < end) __builtin_prefetch(map + col[e + SOON]);
            int64_t v = col[e];
            if (v < 0 || v >= N) return BROKEN;
            int64_t k = map[v];
            if (k && fill) edges[at] = k - 1, edges[E + at] = m, place[at] = e;
            at += k > 0;
        }
    }
    for (int64_t m = 0; m < M && fill; m++) map[nodes[m]] = 0;
    return at;
}

/* found, score [S, count] and size [S]: of each seed the nodes of the largest personalised PageRank, the seed first.
 * `restart` is the probability of going back to the seed, `enough` that times epsilon; as _push in subgraph.py. */
int64_t NAME(near)(int64_t N, const int64_t *ptr, const I *col, int64_t E, int32_t *map, int64_t S,
                   const int64_t *seeds, int64_t count, double restart, double enough, int64_t *found, double *score,
                   int64_t *size) {
    int64_t have = 1024, *heap = malloc((size_t)count * sizeof(int64_t)), result = FULL;
    Reached *all = malloc((size_t)have * sizeof(Reached));
    if (!heap || !all) goto done;
    for (int64_t s = 0; s < S; s++) {
        int64_t n = 0, head = -1, tail = -1, v = seeds[s], e = 0, end = 1, u = -1;
        double share = restart;
        for (;;) {
            for (; e < end; e++) { /* at first the seed's own share, then those of the neighbours of u */
                if (u >= 0) {
                    if (e + SOON < end) __builtin_prefetch(map + col[e + SOON], 1);
                    v = col[e];
                    if (v < 0 || v >= N) {
                        result = BROKEN;
                        goto done;
                    }
                }
                if (!map[v]) {
                    if (n == have) {
                        Reached *more = realloc(all, (size_t)(have *= 2) * sizeof(Reached));
                        if (!more) goto done;
                        all = more;
                    }
                    all[n] = (Reached){v, ptr[v], ptr[v + 1] - ptr[v], -2, 0, 0};
                    if (all[n].begin < 0 || all[n].degree < 0 || ptr[v + 1] > E) {
                        result = BROKEN;
                        goto done;
                    }
                    map[v] = (int32_t)++n;
                }
                Reached *to = all + map[v] - 1;
                to->left += share;
                if (to->next == -2 && (u < 0 || to->left >= enough * (double)(to->degree > 1 ? to->degree : 1))) {
                    if (head < 0) head = map[v] - 1;
                    else all[tail].next = map[v] - 1;
                    tail = map[v] - 1, to->next = -1;
                }
            }
            if ((u = head) < 0) break;
            double left = all[u].left;
            head = all[u].next, all[u].next = -2, all[u].left = 0;
            all[u].kept += all[u].degree ? left : left / restart; /* without neighbours the walk stays */
            share = all[u].degree ? (1 - restart) * left / (double)all[u].degree : 0;
            e = all[u].begin, end = e + all[u].degree;
        }
        int64_t kept = 0, wanted = least(count, n) - 1;
        for (int64_t i = 0; i < n; i++) {
            all[i].kept += all[i].left;
            map[all[i].node] = 0;
        }
        for (int64_t i = 1; i < n && wanted; i++) {
            if (kept < wanted) {
                heap[kept++] = i;
                for (int64_t j = kept / 2 - 1; kept == wanted && j >= 0; j--) sink(all, heap, kept, j);
            } else if (after(all + heap[0], all + i)) {
                heap[0] = i;
                sink(all, heap, kept, 0);
            }
        }
        size[s] = wanted + 1;
        found[s * count] = all[0].node, score[s * count] = all[0].kept;
        for (int64_t k = wanted; k > 0; k--) {
            found[s * count + k] = all[heap[0]].node, score[s * count + k] = all[heap[0]].kept;
            heap[0] = heap[k - 1];
            sink(all, heap, k - 1, 0);
        }
    }
    result = 0;
done:
    free(heap);
    free(all);
    return result;
}
#endif
