// The softmax family's rows by vectors.  A group is LANES rows, one in each lane, where they fit in a tile,
// else one row with its columns in the lanes: either way `count` Reals, whose loops know no rows.  A single
// row is filled up to whole vectors with its last number, which no sum takes in.
//
// The loops over lanes must not be unrolled: GCC would do so before it makes vectors, and then make none.

struct Rows {
    const int columns, height, used, count; // height rows in a group; used Reals, and up to whole vectors

    explicit Rows(Int n)
        : columns(int(n)), height(n * LANES <= TILE ? LANES : 1), used(columns * height),
          count(whole_vectors(used)) {}

    // Where column j of row r is.
    int at(int r, int j) const              { return height == 1 ? j : j * LANES + r; }

    // to <- value(r, j) of column j of the first `rows` rows; rows that are missing are as the last.
    template<class Value> __device__ inline void take(Real* to, int rows, Value value) const
    {
        if (height == 1) {
            #pragma GCC ivdep
            for (int j = 0; j < columns; ++j) to[j] = value(0, j);
            for (int j = columns; j < count; ++j) to[j] = to[columns - 1];
        } else if (rows == LANES)
            for (int j = 0; j < columns; ++j)
                #pragma GCC ivdep
                #pragma GCC unroll 1
                for (int r = 0; r < LANES; ++r) to[j * LANES + r] = value(r, j);
        else
            for (int j = 0; j < columns; ++j)
                for (int r = 0; r < LANES; ++r) to[j * LANES + r] = value(r < rows ? r : rows - 1, j);
    }

    // to, in memory, <- value(i, l), for that at i, of the row in lane l.
    template<class Value> __device__ inline void put(Real* to, int rows, Value value) const
    {
        if (height == 1) {
            #pragma GCC ivdep
            for (int j = 0; j < columns; ++j) to[j] = value(j, 0);
        } else if (rows == LANES)
            for (int j = 0; j < columns; ++j)
                #pragma GCC ivdep
                #pragma GCC unroll 1
                for (int r = 0; r < LANES; ++r) to[r * columns + j] = value(j * LANES + r, r);
        else
            for (int j = 0; j < columns; ++j)
                for (int r = 0; r < rows; ++r) to[r * columns + j] = value(j * LANES + r, r);
    }

    // lanes <- each row's numbers folded into one, which is in each lane of the row.
    template<class F> void fold_rows(Real* lanes, const Real* a, Real begin, F f) const
    {
        Lanes folded = all_lanes(begin);
        for (int i = 0; i < count; i += LANES) fold(folded, a + i, f);
        store(lanes, height == 1 ? all_lanes(across(folded, f)) : folded);
    }

    void sum(Real* lanes, Real* a) const
    {
        for (int i = used; i < count; ++i) a[i] = Real(0);
        fold_rows(lanes, a, Real(0), add);
    }
};

// v <- v less its row's maximum, e <- exp(v), and of the sum of e its logarithm and inverse.
inline void exponentials(const Rows& group, Real* __restrict v, Real* __restrict e, Real* log_sum, Real* inverse)
{
    Real most[LANES], sum[LANES];
    group.fold_rows(most, v, -__builtin_inff(), larger);
    for (int i = 0; i < group.count; i += LANES)
        #pragma GCC unroll 1
        for (int l = 0; l < LANES; ++l) v[i + l] -= most[l], e[i + l] = exp(v[i + l]);
    group.sum(sum, e);
    #pragma GCC unroll 1
    for (int l = 0; l < LANES; ++l) log_sum[l] = log(sum[l]), inverse[l] = Real(1) / sum[l];
}
