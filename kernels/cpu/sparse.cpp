// The products of a first layer whose rows are sparse, as sparse.cu has them.

struct Sparse {
    const Real* values;                     // X in CSR form
    const int* columns;
    const Int* starts;
    const int* numbers;                     // the rows of X of the batch, -1 for none; 0: as they stand
    Int numbers_stride;
    Real* WT;                               // (M, N_0, N_1): N_0 x N_1 every WT_stride; or the gradient
    Int WT_stride;
    Real* Z;                                // (M, B, N_1): z, or delta
    Int networks, rows, units, chunks;
    unsigned char* occurs;                  // (M, N_0)
    Int features;
};

// Neighbouring units in COUNT vectors.
template<int COUNT> struct Strip {
    Vector parts[COUNT];
    static constexpr Int UNITS = COUNT * WIDTH / sizeof(Real);
};

template<int COUNT>
__device__ __forceinline__ void multiply_add(Strip<COUNT>& sum, Real x, const Real* row)
{
    for (int i = 0; i < COUNT; ++i)
        sum.parts[i] += x * Vector(*reinterpret_cast<const Loose*>(row + i * (WIDTH / sizeof(Real))));
}

// z of the units from `unit` on, in strips while there are as many; returns the first that is left.
template<int COUNT>
inline Int strips(const Sparse& a, Int first, Int last, const Real* WT, Real* z, Int unit)
{
    for (; unit + Strip<COUNT>::UNITS <= a.units; unit += Strip<COUNT>::UNITS) {
        const auto sum = row_product<Strip<COUNT>>(a.values, a.columns, first, last, WT + unit, a.units);
        for (int i = 0; i < COUNT; ++i)
            *reinterpret_cast<Loose*>(z + unit + i * (WIDTH / sizeof(Real))) = sum.parts[i];
    }
    return unit;
}

inline Int row_of(const Sparse& a, Int m, Int row)
{
    return a.numbers ? a.numbers[m * a.numbers_stride + row] : row;
}

extern "C" void sparse_product(const Sparse& a, int piece, int pieces)
{
    each_item(a.networks, a.chunks, a.rows, piece, pieces, [&](const Part& part) {
        const Real* WT = a.WT + part.network * a.WT_stride;
        for (Int row = part.first; row < part.last; ++row) {
            const Int source = row_of(a, part.network, row);
            Real* z = a.Z + (part.network * a.rows + row) * a.units;
            if (source < 0) {
                for (Int unit = 0; unit < a.units; ++unit) z[unit] = Real(0);
                continue;
            }
            const Int first = a.starts[source], last = a.starts[source + 1];
            Int unit = strips<8>(a, first, last, WT, z, 0);
            unit = strips<4>(a, first, last, WT, z, unit);
            unit = strips<1>(a, first, last, WT, z, unit);
            for (; unit < a.units; ++unit)
                z[unit] = row_product<Real>(a.values, a.columns, first, last, WT + unit, a.units);
        }
    });
}

inline void add_multiple(Real* G, Real x, const Real* delta, Int units)
{
    #pragma GCC ivdep
    for (Int unit = 0; unit < units; ++unit) G[unit] += x * delta[unit];
}

// A chunk is a share of the features: what no two threads write to.
extern "C" void sparse_gradient(const Sparse& a, int piece, int pieces)
{
    each_item(a.networks, a.chunks, a.chunks, piece, pieces, [&](const Part& part) {
        const unsigned share = unsigned(part.chunk), shares = unsigned(a.chunks);
        const Int m = part.network;
        Real* G = a.WT + m * a.WT_stride;
        unsigned char* occurs = a.occurs + m * a.features;
        for (Int j = 0; j < a.features; ++j)
            if (share_of(int(j), shares) == share && occurs[j]) {       // of the last batch
                occurs[j] = 0;
                for (Int unit = 0; unit < a.units; ++unit) G[j * a.units + unit] = Real(0);
            }
        for (Int row = 0; row < a.rows; ++row) {
            const Int source = row_of(a, m, row);
            if (source < 0) continue;
            const Real* delta = a.Z + (m * a.rows + row) * a.units;
            for (Int j = a.starts[source]; j < a.starts[source + 1]; ++j) {
                const Int column = a.columns[j];
                if (share_of(int(column), shares) != share) continue;
                add_multiple(G + column * a.units, a.values[j], delta, a.units);
                occurs[column] = 1;
            }
        }
    });
}
