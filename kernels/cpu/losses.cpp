// Equation (7) and its derivative, as losses.cu has them: by elements in tiles of whole rows, and for the
// softmax family by the groups of rows.hpp.
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


// y, which is 0 but for them, <- `one` for the labels of some rows, where place(row, column) is.
template<class Place> static void mark_labels(const int* labels, int rows, int columns, Real* y, Real one, Place place)
{
    for (int r = 0; r < rows; ++r)
        if (columns == 1) y[place(r, 0)] = one * Real(labels[r]);
        else if (labels[r] >= 0 && labels[r] < columns) y[place(r, labels[r])] = one;
}

// l <- w l and delta <- w / sum w * dl/du of `count` elements; a row without weight may hold anything.
static void elements(const Loss& a, const Real* u, const Real* bias, const Real* y, const Real* w, Real factor,
                     Real* l, Real* delta, int count)
{
    const Real p[2] = {a.p[0], a.p[1]}, scale = a.scale_shift[0], shift = a.scale_shift[1];
    #pragma GCC ivdep
    for (int i = 0; i < count; ++i) {
        const Real v = u[i] + bias[i], target = scale * y[i] + shift;
        const Real value = w[i] * Form::l(v, target, p), slope = w[i] * factor * Form::dl(v, target, p);
        l[i] = w[i] > Real(0) ? value : Real(0);
        delta[i] = w[i] > Real(0) ? slope : Real(0);
    }
}

static double loss_elements(const Loss& a, const Part& part, const Scratch& scratch)
{
    const Int m = part.network;
    const int columns = int(a.columns), height = columns < TILE ? TILE / columns : 1;
    const Real factor = batch_factor(a, m);
    Real *bias = scratch[0], *marked = scratch[1], *w = scratch[2], *l = scratch[3], *d = scratch[4];
    double sum = 0;
    if (a.b) repeat(bias, a.b + m * a.b_stride, columns, height);
    for (Int row = part.first; row < part.last; row += height) {
        const int rows = int(part.last - row < height ? part.last - row : height), count = rows * columns;
        const Int first = (m * a.rows + row) * columns, y = m * a.y_stride + (a.labels ? row : row * columns);
        auto mark = [&](Real one) {
            mark_labels(a.labels + y, rows, columns, marked, one, [=](int r, int j) { return r * columns + j; });
        };
        for (int r = 0; r < rows; ++r)
            for (int j = 0; j < columns; ++j) w[r * columns + j] = a.w[m * a.w_stride + row + r];
        if (a.labels) mark(Real(1));
        elements(a, a.u + first, bias, a.labels ? marked : a.dense + y, w, factor, l, a.delta ? a.delta + first : d, count);
        if (a.labels) mark(Real(0));
        sum += sum_of(l, count);
    }
    return sum;
}

// The softmax family: log p = z - log sum e^z, q = dl/d log p, delta = w / sum w (q - p sum q).
// l <- l, q <- q, prob <- p, from z less its row's maximum in l and its e^ in prob.
static void row_elements(const Loss& a, const Rows& group, Real* l, Real* q, Real* prob, const Real* y,
                         const Real* log_sum, const Real* inverse)
{
    const Real p[2] = {a.p[0], a.p[1]}, scale = a.scale_shift[0], shift = a.scale_shift[1];
    for (int first = 0; first < group.count; first += LANES)
        #pragma GCC ivdep
        #pragma GCC unroll 1
        for (int lane = 0; lane < LANES; ++lane) {
            const int i = first + lane;
            const Real log_p = l[i] - log_sum[lane], p_i = prob[i] * inverse[lane], u = LOG_U ? log_p : p_i;
            const Real target = scale * y[i] + shift;
            prob[i] = p_i;
            l[i] = Form::l(u, target, p);
            q[i] = Form::dl(u, target, p) * (LOG_U ? Real(1) : p_i);
        }
}

static double loss_rows(const Loss& a, const Part& part, const Scratch& scratch)
{
    const Int m = part.network;
    const int columns = int(a.columns);
    const Rows group(columns);
    const Real factor = batch_factor(a, m);
    const Real* b = a.b + m * a.b_stride;
    Real *v = scratch[0], *prob = scratch[1], *y = scratch[2], *q = scratch[3];
    Real log_sum[LANES], inverse[LANES], weight[LANES], l_sum[LANES], q_sum[LANES];
    double sum = 0;
    for (Int row = part.first; row < part.last; row += group.height) {
        const int rows = int(part.last - row < group.height ? part.last - row : group.height);
        const Int first = (m * a.rows + row) * columns, targets = m * a.y_stride + (a.labels ? row : row * columns);
        const Real *u = a.u + first, *dense = a.dense + targets, *w = a.w + m * a.w_stride + row;
        auto mark = [&](Real one) {
            mark_labels(a.labels + targets, rows, columns, y, one, [&](int r, int j) { return group.at(r, j); });
        };
        group.take(v, rows, [=](int r, int j) { return u[r * columns + j] + b[j]; });
        exponentials(group, v, prob, log_sum, inverse);
        if (a.labels) mark(Real(1));
        else group.take(y, rows, [=](int r, int j) { return dense[r * columns + j]; });
        row_elements(a, group, v, q, prob, y, log_sum, inverse);
        if (a.labels) mark(Real(0));
        group.sum(l_sum, v);
        group.sum(q_sum, q);
        for (int l = 0; l < LANES; ++l) {   // a row without weight may hold anything
            weight[l] = group.height == 1 || l < rows ? w[group.height == 1 ? 0 : l] : Real(0);
            l_sum[l] = weight[l] > Real(0) ? weight[l] * l_sum[l] : Real(0);
            weight[l] *= factor;
        }
        sum += sum_of(l_sum, group.height);
        if (a.delta)
            group.put(a.delta + first, rows, [&](int i, int l) {
                const Real slope = weight[l] * (q[i] - prob[i] * q_sum[l]);
                return weight[l] > Real(0) ? slope : Real(0);
            });
    }
    return sum;
}

extern "C" void loss(const Loss& a, int piece, int pieces)
{
    const Scratch scratch(a.columns, 5);
    for (int i = 0; i < scratch.size * 5; ++i) scratch[0][i] = Real(0);
    each_item(a.networks, a.chunks, a.rows, piece, pieces, [&](const Part& part) {
        a.parts[part.network * a.chunks + part.chunk] =
            ROWS ? loss_rows(a, part, scratch) : loss_elements(a, part, scratch);
    });
    if (pieces == 1) loss_end(a);
}
