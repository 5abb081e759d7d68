// Softmax and log_softmax at the output, as rows.cu has them: a tile is some whole rows.

struct Softmax {
    const Real *z, *b;                      // b: N every b_stride
    Int b_stride;
    Real* n;                                // may be z
    Int logarithm, networks, rows, columns, chunks;
};

extern "C" void activate_rows(const Softmax& a, int piece, int pieces)
{
    const int columns = int(a.columns), height = columns < TILE ? TILE / columns : 1;
    const Scratch scratch(columns, 3);
    Real *bias = scratch[0], *v = scratch[1], *e = scratch[2], inverse[TILE], log_sum[TILE];
    for (int i = 0; i < scratch.size; ++i) bias[i] = Real(0);

    each_item(a.networks, a.chunks, a.rows, piece, pieces, [&](const Part& part) {
        const Int m = part.network;
        repeat(bias, a.b + m * a.b_stride, columns, height);
        for (Int row = part.first; row < part.last; row += height) {
            const int rows = int(part.last - row < height ? part.last - row : height);
            const int count = rows * columns;
            const Int first = (m * a.rows + row) * columns;
            take(v, a.z + first, count);
            for (int i = 0; i < count; ++i) v[i] += bias[i];
            exponentials(v, e, inverse, log_sum, rows, columns);
            Real* n = a.n + first;
            for (int r = 0; r < rows; ++r) {
                const int from = r * columns, to = from + columns;
                if (a.logarithm) for (int j = from; j < to; ++j) n[j] = v[j] - log_sum[r];
                else for (int j = from; j < to; ++j) n[j] = e[j] * inverse[r];
            }
        }
    });
}
