// The three matrix products of a layer, from shared memory to shared memory, with plain multiply-adds.
//
// A thread computes a part of R rows and C columns at a time, in registers; the shape of the parts is
// chosen when the program is compiled, for the matrix's own numbers of rows and columns.  Sums are in
// the order of their index, whatever the part.
//
// What bounds them, by the machine code for sm_90 and without a measurement: of 64-64-10 in float32 the
// wide products have 32 multiply-adds for 6 loads of 128 bits in their loops (z and delta), and 16 for 2
// (the gradient of W).  A warp's multiply-adds take an SM 8 and 4 cycles, its loads 10 and 3: it is the
// arithmetic as much as the bandwidth of shared memory.  At 128 multiply-adds a cycle, a batch of 200
// rows, 2.0 million, takes at least 15,800 cycles.  The narrow products of the last layer, whose parts
// are 2 columns wide, are bound by their loads.

struct Part { int rows, columns; };

__device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// For four terms of the sum, what the busiest warp takes of an SM, in half cycles: of multiply-adds it
// does those of four warps in a cycle; a load of 128 bits keeps its shared memory busy for one or two.
__device__ constexpr int part_cost(int rows, int columns, Part part)
{
    const int parts = ceil_div(rows, part.rows) * ceil_div(columns, part.columns);
    return ceil_div(parts, THREADS) * (2 * part.rows * part.columns + 3 * (part.rows + part.columns));
}

__device__ constexpr Part best_part(int rows, int columns)
{
    Part best{1, 1};
    for (int r = 1; r <= VEC; r *= 2)                   // more would not be in one load
        for (int c = 1; c <= VEC; c *= 2)
            if (part_cost(rows, columns, Part{r, c}) < part_cost(rows, columns, best)) best = Part{r, c};
    return best;
}

// How many of up to `most` neighbouring columns are handled together, so that rows have no rest.
template<int COLUMNS> __device__ constexpr int neighbours(int most)
{
    while (COLUMNS % most) most /= 2;
    return most;
}

// The terms i, ..., i + V - 1 of the sums over a[row][i] b[column][i].
template<int V, int R, int C, int LEAD>
__device__ __forceinline__ void add_by_rows(Real (&sum)[R][C], const Real* a, const Real* const (&b)[C], int i)
{
    Pack<V> left[R];
    #pragma unroll
    for (int r = 0; r < R; ++r) left[r] = load<V>(a + r * LEAD + i);
    #pragma unroll
    for (int c = 0; c < C; ++c) {
        const Pack<V> right = load<V>(b[c] + i);
        #pragma unroll
        for (int r = 0; r < R; ++r)
            #pragma unroll
            for (int v = 0; v < V; ++v) sum[r][c] += left[r].v[v] * right.v[v];
    }
}

// use(row, column, sum_i a[row][i] b[column][i]) for the first `count` rows of a (ROWS, DEPTH) and all of
// b (COLUMNS, DEPTH), both with rows LEAD apart; and for anything in a few rows and columns beyond.
// The columns of a part are apart: a warp's loads of b are then from neighbouring rows, in different
// banks.
template<int ROWS_, int COLUMNS, int DEPTH, int LEAD, class Use>
__device__ __forceinline__ void product_by_rows(const Real* a, const Real* b, int count, Use use)
{
    constexpr int R = best_part(ROWS_, COLUMNS).rows, C = best_part(ROWS_, COLUMNS).columns;
    constexpr int ACROSS = ceil_div(COLUMNS, C), WHOLE = DEPTH / VEC * VEC;
    #pragma unroll 1
    for (int part = thread_in_block(); part < ceil_div(count, R) * ACROSS; part += THREADS) {
        const int row = part / ACROSS * R, first = part % ACROSS;
        const Real* right[C];
        #pragma unroll
        for (int c = 0; c < C; ++c) {
            const int column = first + c * ACROSS;
            right[c] = b + (column < COLUMNS ? column : first) * LEAD;
        }
        Real sum[R][C] = {};
        #pragma unroll 1
        for (int i = 0; i < WHOLE; i += VEC) add_by_rows<VEC, R, C, LEAD>(sum, a + row * LEAD, right, i);
        #pragma unroll
        for (int i = WHOLE; i < DEPTH; ++i) add_by_rows<1, R, C, LEAD>(sum, a + row * LEAD, right, i);
        #pragma unroll
        for (int c = 0; c < C; ++c)
            #pragma unroll
            for (int r = 0; r < R; ++r) use(row + r, first + c * ACROSS, sum[r][c]);
    }
}

// The terms i, ..., i + V - 1 of the sums over a[row][i] b[i][column].
template<int V, int R, int C, int A_LEAD, int B_LEAD>
__device__ __forceinline__ void add_by_columns(Real (&sum)[R][C], const Real* a, const Real* b, int i)
{
    Pack<V> left[R];
    #pragma unroll
    for (int r = 0; r < R; ++r) left[r] = load<V>(a + r * A_LEAD + i);
    #pragma unroll
    for (int v = 0; v < V; ++v) {
        const Pack<C> right = load<C>(b + (i + v) * B_LEAD);
        #pragma unroll
        for (int r = 0; r < R; ++r)
            #pragma unroll
            for (int c = 0; c < C; ++c) sum[r][c] += left[r].v[v] * right.v[c];
    }
}

// use(row, column, a Pack of sum_i a[row][i] b[i][column], ...) for the first `count` rows of
// a (ROWS, DEPTH), whose rows are A_LEAD apart, and all columns of b (DEPTH, COLUMNS), B_LEAD apart.
template<int ROWS_, int COLUMNS, int DEPTH, int A_LEAD, int B_LEAD, class Use>
__device__ __forceinline__ void product_by_columns(const Real* a, const Real* b, int count, Use use)
{
    constexpr int R = best_part(ROWS_, COLUMNS).rows, C = best_part(ROWS_, COLUMNS).columns;
    constexpr int ACROSS = ceil_div(COLUMNS, C), WHOLE = DEPTH / VEC * VEC, V = neighbours<COLUMNS>(C);
    #pragma unroll 1
    for (int part = thread_in_block(); part < ceil_div(count, R) * ACROSS; part += THREADS) {
        const int row = part / ACROSS * R, column = part % ACROSS * C;
        const Real *left = a + row * A_LEAD, *right = b + column;
        Real sum[R][C] = {};
        #pragma unroll 1
        for (int i = 0; i < WHOLE; i += VEC) add_by_columns<VEC, R, C, A_LEAD, B_LEAD>(sum, left, right, i);
        #pragma unroll
        for (int i = WHOLE; i < DEPTH; ++i) add_by_columns<1, R, C, A_LEAD, B_LEAD>(sum, left, right, i);
        #pragma unroll
        for (int r = 0; r < R; ++r)
            #pragma unroll
            for (int c = 0; c < C; c += V) {
                Pack<V> pack;
                #pragma unroll
                for (int v = 0; v < V; ++v) pack.v[v] = sum[r][c + v];
                if (row + r < count && column + c < COLUMNS) use(row + r, column + c, pack);
            }
    }
}

// g (OUTPUTS, INPUTS) <- [g +] sum over the first `count` rows of delta[row][j] n[row][i]; the rows of
// g and n are N_LEAD apart, those of delta LEAD.
template<int OUTPUTS, int INPUTS, int LEAD, int N_LEAD>
__device__ __forceinline__ void gradient_of_weights(const Real* delta, const Real* n, Real* g, int count, bool adds)
{
    constexpr int R = best_part(OUTPUTS, INPUTS).rows, C = best_part(OUTPUTS, INPUTS).columns;
    constexpr int ACROSS = ceil_div(INPUTS, C), V = neighbours<INPUTS>(C);
    #pragma unroll 1
    for (int part = thread_in_block(); part < ceil_div(OUTPUTS, R) * ACROSS; part += THREADS) {
        const int j = part / ACROSS * R, i = part % ACROSS * C;
        Real sum[R][C] = {};
        #pragma unroll 4
        for (int row = 0; row < count; ++row) {
            const Pack<R> left = load<R>(delta + row * LEAD + j);
            const Pack<C> right = load<C>(n + row * N_LEAD + i);
            #pragma unroll
            for (int r = 0; r < R; ++r)
                #pragma unroll
                for (int c = 0; c < C; ++c) sum[r][c] += left.v[r] * right.v[c];
        }
        #pragma unroll
        for (int r = 0; r < R; ++r)
            #pragma unroll
            for (int c = 0; c < C; c += V)
                if (j + r < OUTPUTS && i + c < INPUTS) {
                    Real* out = g + (j + r) * N_LEAD + i + c;
                    Pack<V> pack = {};
                    if (adds) pack = load<V>(out);
                    #pragma unroll
                    for (int v = 0; v < V; ++v) pack.v[v] += sum[r][c + v];
                    store<V>(out, pack);
                }
    }
}

// g (OUTPUTS) <- [g +] the sum of the first `count` rows of delta.  The last threads do it: where W has
// few parts, they have nothing else to do.
template<int OUTPUTS, int LEAD>
__device__ __forceinline__ void gradient_of_biases(const Real* delta, Real* g, int count, bool adds)
{
    for (int j = THREADS - 1 - thread_in_block(); j < OUTPUTS; j += THREADS) {
        Real sum = Real(0);
        #pragma unroll 8
        for (int row = 0; row < count; ++row) sum += delta[row * LEAD + j];     // (13)
        g[j] = adds ? g[j] + sum : sum;
    }
}
