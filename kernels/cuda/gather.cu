// A minibatch by index: rows of X converted to Stored, targets and sample weights, and the sum of the
// weights of each network.  An index below 0 is padding: a row of zeros with weight 0.  Of sparse rows the
// indices are taken instead, with no columns.
//
// Bytes per element of X: reads one Source, writes one Stored.
//
// `Source` (the type of X) and Stored (of x) are defined before this text.

constexpr int STORED_VEC = 16 / sizeof(Stored);         // elements of x in 128 bits

// order (1 or M, steps * batch): the row of position i; cursor (M): batches done in this epoch.
// X (1 or M, R, columns), labels (1 or M, R) or dense (1 or M, R, outputs) or neither, weight
// (1 or M, R) or 0; a stride is from network to network, 0 if shared.
// For each network `sums` blocks, which add its weights, and `chunks` with blockDim.y rows at a time.
// Out: x (M, B, columns) or numbers (M, B), the other of them 0; y_labels (M, B) or y_dense (M, B, outputs);
// w (M, B), w_sum (M).
// partial (M, sums); arrived (M), all 0.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) gather(
    const int* order, long long order_stride, const long long* cursor, long long batch,
    const Source* X, long long x_stride, const int* labels, const Real* dense, long long y_stride,
    const Real* weight, long long weight_stride,
    Stored* x, int* numbers, int* y_labels, Real* y_dense, Real* w, Real* w_sum,
    Real* partial, unsigned* arrived, long long rows, int columns, int outputs, int sums, int chunks)
{
    const Place at = place<1>(1, sums + chunks);
    const long long m = at.network, step = (long long)chunks * blockDim.y;
    const int* index = order + m * order_stride + cursor[m] * batch;

    if (at.chunk < sums) {                              // first, as their loads wait for one another
        Real sum = Real(0);
        for (long long row = at.chunk * THREADS + thread_in_block(); row < rows; row += sums * THREADS) {
            const int source = index[row];
            sum += source < 0 ? Real(0) : weight ? weight[m * weight_stride + source] : Real(1);
        }
        sum = block_sum(sum);
        Real* parts = partial + m * sums;
        if (thread_in_block() == 0) parts[at.chunk] = sum;
        if (!last_block(arrived + m, sums)) return;
        sum = ordered_sum(parts, sums);
        if (thread_in_block() == 0) w_sum[m] = sum;
        return;
    }
    for (long long row = at.row - (long long)sums * blockDim.y; row < rows; row += step) {
        const int source = index[row];
        const long long out = m * rows + row;
        if (source < 0) {
            for (int j = int(threadIdx.x); j < columns; j += blockDim.x) x[out * columns + j] = Stored(0);
        } else {
            const Source* from = X + m * x_stride + (long long)source * columns;
            if (columns % STORED_VEC == 0)
                copy<STORED_VEC>(from, x + out * columns, threadIdx.x, blockDim.x, columns / STORED_VEC);
            else
                copy<1>(from, x + out * columns, threadIdx.x, blockDim.x, columns);
        }
        if (dense)
            for (int j = int(threadIdx.x); j < outputs; j += blockDim.x)
                y_dense[out * outputs + j] =
                    source < 0 ? Real(0) : dense[m * y_stride + (long long)source * outputs + j];
        if (threadIdx.x == 0) {
            if (numbers) numbers[out] = source;
            if (labels) y_labels[out] = source < 0 ? 0 : labels[m * y_stride + source];
            w[out] = source < 0 ? Real(0) : weight ? weight[m * weight_stride + source] : Real(1);
        }
    }
}
