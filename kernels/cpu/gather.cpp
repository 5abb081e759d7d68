// A minibatch by index, as gather.cu has it: an index below 0 is a row of zeros with weight 0.
//
// `Source` (the type of X) is defined before this text.

struct Gather {
    const int* order;
    Int order_stride;
    const Int* cursor;
    Int batch;
    const Source* X;
    Int x_stride;
    const int* labels;                      // labels, dense and weight may be 0
    const Real* dense;
    Int y_stride;
    const Real* weight;
    Int weight_stride;
    Real* x;
    int* y_labels;
    Real *y_dense, *w, *w_sum;
    Int networks, rows, columns, outputs, chunks;
    int* numbers;                           // (M, B), of sparse rows: the indices; or 0
};

extern "C" void gather_end(const Gather& a, int = 0, int = 1)
{
    for (Int m = 0; m < a.networks; ++m) a.w_sum[m] = sum_of(a.w + m * a.rows, int(a.rows));
}

template<class T>
inline void copy_row(Real* to, const T* row, Int count)
{
    if (row) {
        #pragma GCC ivdep
        for (Int j = 0; j < count; ++j) to[j] = Real(row[j]);
    } else
        for (Int j = 0; j < count; ++j) to[j] = Real(0);
}

// Rows lie anywhere in memory: fetch the beginning of one that will be needed soon.
template<class T>
inline void fetch(const T* row, Int count)
{
    const Int size = count * Int(sizeof(T)) < 256 ? count * Int(sizeof(T)) : 256;
    for (Int i = 0; i < size; i += 64) __builtin_prefetch(reinterpret_cast<const char*>(row) + i);
}

constexpr int AHEAD = 8;                    // rows

extern "C" void gather(const Gather& a, int piece, int pieces)
{
    each_item(a.networks, a.chunks, a.rows, piece, pieces, [&](const Part& part) {
        const Int m = part.network;
        const int* index = a.order + m * a.order_stride + a.cursor[m] * a.batch;
        const Source* X = a.X + m * a.x_stride;
        for (Int row = part.first; row < part.last; ++row) {
            const Int source = index[row], out = m * a.rows + row, y = m * a.y_stride + source;
            const bool used = source >= 0;
            if (row + AHEAD < part.last && index[row + AHEAD] >= 0)
                fetch(X + index[row + AHEAD] * a.columns, a.columns);
            copy_row(a.x + out * a.columns, used ? X + source * a.columns : 0, a.columns);
            if (a.numbers) a.numbers[out] = int(source);
            if (a.dense)
                copy_row(a.y_dense + out * a.outputs,
                         used ? a.dense + m * a.y_stride + source * a.outputs : 0, a.outputs);
            if (a.labels) a.y_labels[out] = used ? a.labels[y] : 0;
            a.w[out] = !used ? Real(0) : a.weight ? a.weight[m * a.weight_stride + source] : Real(1);
        }
    });
    if (pieces == 1) gather_end(a);
}
