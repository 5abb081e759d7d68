// Equation (7) and its derivative, as losses.cu has them: a tile is some whole rows.
//
// `Form` (a struct of losses.cuh), ROWS and LOG_U are defined before this text.

struct Loss {
    const Real *u, *b;                      // b 0 where u is ŷ
    Int b_stride;
    const int* labels;                      // one of the two is 0
    const Real* dense;
    Int y_stride;
    const Real* scale_shift;                // y enters as scale y + shift
    const Real* w;
    Int w_stride;
    const Real* w_sum;
    Int mean;
    const Real* p;
    Real *delta, *value;                    // delta may be 0
    double* parts;                          // (M, chunks)
    Int networks, rows, columns, chunks;
};

// 1 / sum of weights for the mean, 1 for the sum; 0 for a batch without weight.
static Real batch_factor(const Loss& a, Int m)
{
    return a.w_sum[m] == Real(0) ? Real(0) : a.mean ? Real(1) / a.w_sum[m] : Real(1);
}

extern "C" void loss_end(const Loss& a, int = 0, int = 1)
{
    for (Int m = 0; m < a.networks; ++m) {
        double sum = 0;
        for (Int c = 0; c < a.chunks; ++c) sum += a.parts[m * a.chunks + c];
        a.value[m] = Real(sum) * batch_factor(a, m);
    }
}

static void take_targets(const Loss& a, Int m, Int row, int rows, Real* y)
{
    const int columns = int(a.columns), count = rows * columns;
    const Real scale = a.scale_shift[0], shift = a.scale_shift[1];
    if (!a.labels) {
        take(y, a.dense + m * a.y_stride + row * columns, count);
        for (int i = 0; i < count; ++i) y[i] = scale * y[i] + shift;
        return;
    }
    const int* labels = a.labels + m * a.y_stride + row;
    if (columns == 1) {
        for (int r = 0; r < rows; ++r) y[r] = scale * Real(labels[r]) + shift;
        return;
    }
    for (int i = 0; i < count; ++i) y[i] = shift;
    for (int r = 0; r < rows; ++r)
        if (labels[r] >= 0 && labels[r] < columns) y[r * columns + labels[r]] = scale + shift;
}

extern "C" void loss(const Loss& a, int piece, int pieces)
{
    const int columns = int(a.columns), height = columns < TILE ? TILE / columns : 1;
    const Scratch scratch(columns, 6);
    Real *bias = scratch[0], *v = scratch[1], *prob = scratch[2], *y = scratch[3], *l = scratch[4],
         *d = scratch[5];
    Real inverse[TILE], log_sum[TILE];
    for (int i = 0; i < scratch.size; ++i) y[i] = bias[i] = Real(0);
    const Real p[2] = {a.p[0], a.p[1]};

    each_item(a.networks, a.chunks, a.rows, piece, pieces, [&](const Part& part) {
        const Int m = part.network;
        const Real factor = batch_factor(a, m);
        double sum = 0;
        if (a.b) repeat(bias, a.b + m * a.b_stride, columns, height);
        for (Int row = part.first; row < part.last; row += height) {
            const int rows = int(part.last - row < height ? part.last - row : height);
            const int count = rows * columns, whole = whole_vectors(count);
            const Int first = (m * a.rows + row) * columns;
            const Real* w = a.w + m * a.w_stride + row;
            take(v, a.u + first, count);
            for (int i = 0; i < whole; ++i) v[i] += bias[i];
            take_targets(a, m, row, rows, y);

            if constexpr (ROWS) {           // log p = z - log sum e^z
                exponentials(v, prob, inverse, log_sum, rows, columns);
                for (int r = 0; r < rows; ++r)
                    for (int j = r * columns; j < (r + 1) * columns; ++j)
                        v[j] -= log_sum[r], prob[j] *= inverse[r];
            }
            const Real* variable = ROWS && !LOG_U ? prob : v;
            for (int i = 0; i < whole; ++i) l[i] = Form::l(variable[i], y[i], p);
            for (int r = 0; r < rows; ++r)  // a row without weight may hold anything
                if (w[r] > Real(0)) sum += w[r] * sum_of(l + r * columns, columns);
            if (!a.delta) continue;

            for (int i = 0; i < whole; ++i)
                d[i] = Form::dl(variable[i], y[i], p) * (ROWS && !LOG_U ? prob[i] : Real(1));
            Real* delta = a.delta + first;
            for (int r = 0; r < rows; ++r) {
                const Real weight = w[r] * factor;
                const int from = r * columns, to = from + columns;
                if (!(weight > Real(0)))
                    for (int j = from; j < to; ++j) delta[j] = Real(0);
                else if constexpr (ROWS) {  // q - p sum q
                    const Real q_sum = sum_of(d + from, columns);
                    for (int j = from; j < to; ++j) delta[j] = weight * (d[j] - prob[j] * q_sum);
                } else
                    for (int j = from; j < to; ++j) delta[j] = weight * d[j];
            }
        }
        a.parts[m * a.chunks + part.chunk] = sum;
    });
    if (pieces == 1) loss_end(a);
}
