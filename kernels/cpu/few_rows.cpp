// Products of few rows, out <- a b^T for each network.  To read b takes the time, and BLAS first copies
// it into an order of its own: here every row of b is read once, and meets all rows of a in the cache.

struct FewRows {
    const Real* a;                          // I x L
    Int a_stride;
    const Real* b;                          // J x L
    Int b_stride;
    Real* out;                              // I x J
    Int out_stride;
    Int networks, I, J, L, chunks;
};

constexpr int STEP = WIDTH / sizeof(Real);

inline Vector vector_at(const Real* a)  { return *reinterpret_cast<const Loose*>(a); }

// out <- ROWS rows of a by COLUMNS rows of b, by ROWS COLUMNS sums in registers: enough that none waits
// for its last addition, and no more than there are.
template<int ROWS, int COLUMNS>
static void products(const FewRows& g, const Real* a, const Real* b, Real* out)
{
    Vector sums[ROWS][COLUMNS] = {};
    Int l = 0;
    for (; l + STEP <= g.L; l += STEP)
#pragma GCC unroll 8
        for (int j = 0; j < COLUMNS; ++j)
#pragma GCC unroll 4
            for (int i = 0; i < ROWS; ++i)
                sums[i][j] += vector_at(a + i * g.L + l) * vector_at(b + j * g.L + l);
    for (int i = 0; i < ROWS; ++i)
        for (int j = 0; j < COLUMNS; ++j) {
            Real sum = Real(0);
            for (int v = 0; v < STEP; ++v) sum += sums[i][j][v];
            for (Int rest = l; rest < g.L; ++rest) sum += a[i * g.L + rest] * b[j * g.L + rest];
            out[i * g.J + j] = sum;
        }
}

// All rows of a by COLUMNS rows of b.
template<int COLUMNS>
static void all_rows(const FewRows& g, const Real* a, const Real* b, Real* out)
{
    Int i = 0;
    for (; i + 4 <= g.I; i += 4) products<4, COLUMNS>(g, a + i * g.L, b, out + i * g.J);
    for (; i < g.I; ++i) products<1, COLUMNS>(g, a + i * g.L, b, out + i * g.J);
}

extern "C" void few_rows(const FewRows& g, int piece, int pieces)
{
    each_item(g.networks, g.chunks, g.J, piece, pieces, [&](const Part& part) {
        const Real* a = g.a + part.network * g.a_stride;
        const Real* b = g.b + part.network * g.b_stride;
        Real* out = g.out + part.network * g.out_stride;
        Int j = part.first;
        for (; g.I == 1 && j + 8 <= part.last; j += 8) all_rows<8>(g, a, b + j * g.L, out + j);
        for (; j + 3 <= part.last; j += 3) all_rows<3>(g, a, b + j * g.L, out + j);
        for (; j < part.last; ++j) all_rows<1>(g, a, b + j * g.L, out + j);
    });
}
