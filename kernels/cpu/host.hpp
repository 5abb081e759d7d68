// What the programs of this folder share: CUDA's words for the host, and tiles.  They compile the structs
// of activations.cuh, losses.cuh and the update rules for the CPU; the contract is that of the CUDA kernels
// (gpumlp/backend/contract.py).
//
// `Real`, float or double, is defined before this text, and mathematics.hpp stands there.  No headers are
// included.
//
// A program's function takes a struct of 8-byte arguments, which gpumlp/backend/cpu/host_ops.py fills, and
// does the items piece, piece + pieces, ... of them: items do not depend on the number of threads, nor
// does any sum.  Where a sum crosses items, each leaves its part, and `..._end` adds them in order;
// a piece that is alone does that itself.

typedef long long Int;
static_assert(sizeof(void*) == 8 && sizeof(Int) == 8, "arguments are 8 bytes each");

#define __device__ __attribute__((always_inline))
#define __forceinline__ inline

extern "C" {
void* malloc(unsigned long) noexcept;
void free(void*) noexcept;
}

inline bool isfinite(Real a)                { return a - a == Real(0); }     // the compiler makes vectors of it
inline Real fmax(Real a, Real b)            { return a > b || b != b ? a : b; }    // a number, if one is
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }

// Update rules move packs of neighbours; here they are of one, and the compiler makes the vectors.
constexpr int VEC = 1;
template<int V> struct Pack { Real v[V]; };

template<int V> inline Pack<V> load(const Real* a)
{
    Pack<V> pack;
    for (int v = 0; v < V; ++v) pack.v[v] = a[v];
    return pack;
}

template<int V> inline void store(Real* a, const Pack<V>& pack)
{
    for (int v = 0; v < V; ++v) a[v] = pack.v[v];
}

// ---------------------------------------------------------------- items
// Part `chunk` of `chunks` of `size` things: from first up to last.
struct Part { Int network, chunk, first, last; };

// item(Part) for each item of this piece; there are `chunks` of them for each network.
template<class Item>
inline void each_item(Int networks, Int chunks, Int size, int piece, int pieces, Item item)
{
    for (Int i = piece; i < networks * chunks; i += pieces) {
        const Int m = i / chunks, chunk = i % chunks;
        item(Part{m, chunk, size * chunk / chunks, size * (chunk + 1) / chunks});
    }
}

// ---------------------------------------------------------------- tiles
// Elements are computed in tiles that stay in the first-level cache: some whole rows, or a part of a
// row that is longer.  In memory a tile is contiguous, so that its loops run over all its elements,
// whatever the length of the rows; in a local copy they run on to whole vectors.
constexpr int TILE = 4096 / sizeof(Real);
constexpr int LANES = 64 / sizeof(Real);

inline int whole_vectors(int count)
{
    return (count + LANES - 1) / LANES * LANES;
}

// to[0 .. ] <- from[0 .. count - 1], and zeros up to whole vectors.
inline void take(Real* to, const Real* from, int count)
{
    for (int i = 0; i < count; ++i) to[i] = from[i];
    for (int i = count; i < whole_vectors(count); ++i) to[i] = Real(0);
}

// The numbers of a row, `height` times one after the other.
inline void repeat(Real* to, const Real* row, int width, int height)
{
    for (int r = 0; r < height; ++r)
        for (int j = 0; j < width; ++j) to[r * width + j] = row[j];
}

// tile(row, column, rows, columns) for the rows [first, last): all tiles of the same columns after one
// another, so that what belongs to a column is made once; before them, columns(column, width, height).
template<class Columns, class Tile>
inline void each_tile(Int first, Int last, Int columns, Columns begin, Tile tile)
{
    const Int height = columns < TILE ? TILE / columns : 1;
    for (Int column = 0; column < columns; column += TILE) {
        const int width = int(columns - column < TILE ? columns - column : TILE);
        begin(column, width, int(height));
        for (Int row = first; row < last; row += height)
            tile(row, column, int(last - row < height ? last - row : height), width);
    }
}

// ---------------------------------------------------------------- rows, sums
// A sum's order is part of the result, so the compiler makes no vectors of it: these are written as such.
// There are LANES of them whatever the CPU has; a vector wider than the CPU's would be kept in memory.
#if defined(__AVX512F__)
constexpr int WIDTH = 64;
#elif defined(__AVX__)
constexpr int WIDTH = 32;
#else
constexpr int WIDTH = 16;
#endif
typedef Real Vector __attribute__((vector_size(WIDTH)));
typedef Real Loose __attribute__((vector_size(WIDTH), aligned(sizeof(Real)), may_alias));

struct Lanes { Vector parts[64 / WIDTH]; };

// What lanes are folded by, of vectors and of numbers.
constexpr auto add = [](auto sum, auto a) { return sum + a; };
constexpr auto larger = [](auto most, auto a) { return a > most ? a : most; };  // NaN is left out

inline Lanes all_lanes(Real a)
{
    Lanes lanes;
    for (Vector& part : lanes.parts) part = Vector{} + a;
    return lanes;
}

inline void store(Real* a, const Lanes& lanes)
{
    for (const Vector& part : lanes.parts) *reinterpret_cast<Loose*>(a) = part, a += WIDTH / sizeof(Real);
}

// lanes <- f(lanes, a[0 .. LANES - 1])
template<class F> inline void fold(Lanes& lanes, const Real* a, F f)
{
    for (Vector& part : lanes.parts) part = f(part, Vector(*reinterpret_cast<const Loose*>(a))), a += WIDTH / sizeof(Real);
}

// The lanes, one half onto the other until there is one.
template<class F> inline Real across(Lanes lanes, F f)
{
    for (int half = 32 / WIDTH; half; half /= 2)
        for (int i = 0; i < half; ++i) lanes.parts[i] = f(lanes.parts[i], lanes.parts[i + half]);
    constexpr int SIZE = WIDTH / sizeof(Real);
    Real a[SIZE];
    for (int l = 0; l < SIZE; ++l) a[l] = lanes.parts[0][l];
    for (int half = SIZE / 2; half; half /= 2)
        for (int l = 0; l < half; ++l) a[l] = f(a[l], a[l + half]);
    return a[0];
}

inline Real sum_of(const Real* a, int count)
{
    Real sum = Real(0);
    if (count >= 2 * LANES) {
        Lanes lanes = all_lanes(Real(0));
        for (; count >= LANES; count -= LANES, a += LANES) fold(lanes, a, add);
        sum = across(lanes, add);
    }
    for (int i = 0; i < count; ++i) sum += a[i];
    return sum;
}

// Room for `count` local copies of a tile of whole rows.
struct Scratch {
    Real* memory;
    Int size;

    Scratch(Int columns, int count) : size((columns > TILE ? columns : TILE) + LANES)
    {
        memory = static_cast<Real*>(malloc(sizeof(Real) * size * count));
    }
    ~Scratch() { free(memory); }
    Scratch(const Scratch&) = delete;
    Real* operator[](int i) const { return memory + i * size; }
};
