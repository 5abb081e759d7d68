// Softmax and log_softmax at the output, as rows.cu has them: by the groups of rows.hpp.

struct Softmax {
    const Real *z, *b;                      // b: N every b_stride
    Int b_stride;
    Real* n;                                // may be z
    Int logarithm, networks, rows, columns, chunks;
};

extern "C" void activate_rows(const Softmax& a, int piece, int pieces)
{
    const int columns = int(a.columns);
    const Rows group(columns);
    const Scratch scratch(columns, 2);
    Real *v = scratch[0], *e = scratch[1], log_sum[LANES], inverse[LANES];

    each_item(a.networks, a.chunks, a.rows, piece, pieces, [&](const Part& part) {
        const Real* b = a.b + part.network * a.b_stride;
        for (Int row = part.first; row < part.last; row += group.height) {
            const int rows = int(part.last - row < group.height ? part.last - row : group.height);
            const Int first = (part.network * a.rows + row) * columns;
            const Real* z = a.z + first;
            group.take(v, rows, [=](int r, int j) { return z[r * columns + j] + b[j]; });
            exponentials(group, v, e, log_sum, inverse);
            if (a.logarithm) group.put(a.n + first, rows, [&](int i, int l) { return v[i] - log_sum[l]; });
            else group.put(a.n + first, rows, [&](int i, int l) { return e[i] * inverse[l]; });
        }
    });
}
