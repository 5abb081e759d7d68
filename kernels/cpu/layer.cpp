// Equations (1)-(6), (9), (11) and (13) around the GEMMs, as forward.cu and backward.cu have them.
//
// `Activation`, KEEPS_Z, LEARNED, RANDOM and IDENTITY are defined before this text.

struct Layer {
    Real *z, *n;
    const Real* b;                          // (M, N): N every b_stride
    Int b_stride;
    const Real* p;                          // two every p_stride
    Int p_stride;
    const unsigned long long* seeds;        // (M), or 0 at inference
    const Int* step;                        // (M)
    const unsigned* dropout;                // (M): an element is dropped if its bits are below; or 0
    Int layer, first_row;                   // of the batch, where this is a slice of it
    Int networks, rows, columns, chunks;
    Real *delta, *db;                       // of backprop: db N every db_stride
    Int db_stride;
    Real* dp;                               // one every dp_stride, for a learned slope
    Int dp_stride;
    Real* parts;                            // (M, chunks, N + 1): sums over rows, and of the slope
};

// The random bits of the elements first .. first + count - 1 of these rows of a layer.
struct TileBits {
    unsigned all[TILE + 8];
    const unsigned* of;

    void draw(const Layer& a, Int network, Int first, int count, unsigned purpose)
    {
        first += a.first_row * a.columns;
        const unsigned long long seed = a.seeds[network];
        const unsigned step = unsigned(a.step[network]), layer = unsigned(a.layer);
        const int before = int(first & 3), groups = (before + count + 3) / 4;
        for (int i = 0; i < groups; ++i) {
            const Philox four = philox(unsigned(first >> 2) + i, layer, step, purpose, seed);
            for (int v = 0; v < 4; ++v) all[4 * i + v] = four.v[v];
        }
        of = all + before;
    }
};

// 1 / (1 - dropout probability), from the threshold on 32 bits.
static Real keep_scale(unsigned threshold)
{
    return Real(1) / (Real(1) - Real(threshold) * Real(2.3283064365386963e-10));    // 2^-32
}

static Real drawn(const Real* bounds, unsigned bits)
{
    return bounds[0] + uniform(bits) * (bounds[1] - bounds[0]);
}

// These two: `to` may be `z`; of apply, count is a multiple of LANES.
inline void add_bias(const Real* z, const Real* bias, Real* to, int count)
{
    #pragma GCC ivdep
    for (int i = 0; i < count; ++i) to[i] = z[i] + bias[i];
}

inline void apply(const Real* z, const Real* bias, Real* to, const Real* p, int count)
{
    const Real own[2] = {p[0], p[1]};
    if (bias) {                             // the compiler would load by masks, which takes long at 0
        #pragma GCC ivdep
        for (int i = 0; i < count; ++i) to[i] = Activation::f(z[i] + bias[i], own);     // (2)(4)(6)(9)
    } else {
        #pragma GCC ivdep
        for (int i = 0; i < count; ++i) to[i] = Activation::f(z[i], own);
    }
}

extern "C" void activate(const Layer& a, int piece, int pieces)
{
    each_item(a.networks, a.chunks, a.rows, piece, pieces, [&](const Part& part) {
        const Int m = part.network;
        const Real p[2] = {a.p[m * a.p_stride], a.p[m * a.p_stride + 1]};
        const unsigned threshold = a.dropout ? a.dropout[m] : 0;
        const Real scale = keep_scale(threshold);
        Real bias[TILE], v[TILE];
        TileBits bits;

        each_tile(part.first, part.last, a.columns, [&](Int column, int width, int height) {
            repeat(bias, a.b + m * a.b_stride + column, width, height);
        }, [&](Int row, Int column, int rows, int width) {
            const Int element = row * a.columns + column;
            const int count = rows * width;
            Real* z = a.z + m * a.rows * a.columns + element;
            Real* n = a.n + m * a.rows * a.columns + element;
            const int direct = a.seeds ? 0 : count / LANES * LANES, rest = count - direct;
            if (KEEPS_Z && z != n) add_bias(z, bias, z, direct), apply(z, 0, n, p, direct);
            else apply(z, bias, n, p, direct);
            take(v, z + direct, rest);
            add_bias(v, bias + direct, v, rest);
            if (KEEPS_Z && z != n) for (int i = 0; i < rest; ++i) z[direct + i] = v[i];
            if (RANDOM && a.seeds) {
                bits.draw(a, m, element, count, SLOPE);
                for (int i = 0; i < count; ++i) {
                    const Real slope = drawn(p, bits.of[i]), own[2] = {slope, slope};
                    v[i] = Activation::f(v[i], own);
                }
            } else
                apply(v, 0, v, p, whole_vectors(rest));
            if (a.dropout) {
                bits.draw(a, m, element, count, DROPOUT);
                for (int i = 0; i < count; ++i) v[i] = bits.of[i] >= threshold ? v[i] * scale : Real(0);
            }
            for (int i = 0; i < rest; ++i) n[direct + i] = v[i];
        });
    });
}

// db and dp from the parts.
extern "C" void backprop_end(const Layer& a, int = 0, int = 1)
{
    for (Int m = 0; m < a.networks; ++m) {
        const Real* parts = a.parts + m * a.chunks * (a.columns + 1);
        Real* db = a.db + m * a.db_stride;
        for (Int j = 0; j < a.columns; ++j) db[j] = parts[j];
        Real slope = parts[a.columns];
        for (Int c = 1; c < a.chunks; ++c) {
            const Real* more = parts + c * (a.columns + 1);
            for (Int j = 0; j < a.columns; ++j) db[j] += more[j];
            slope += more[a.columns];
        }
        if (LEARNED) a.dp[m * a.dp_stride] = slope;
    }
}

// df/dp[0] of a learned slope; other activations have none.
template<class A> inline Real d_slope(Real z)
{
    if constexpr (LEARNED) return A::dp(z);
    else return Real(0);
}

// d <- f' d, (11), and to sum what (13) adds; count is a multiple of LANES, kept is z or n.
inline void times_slope(Real* d, const Real* kept, const Real* p, Real* sum, int count, Real* slope_sum)
{
    const Real own[2] = {p[0], p[1]};
    #pragma GCC ivdep
    for (int i = 0; i < count; ++i) {
        if constexpr (LEARNED) slope_sum[i] += d[i] * d_slope<Activation>(kept[i]);
        d[i] *= Activation::df(kept[i], kept[i], own);
        sum[i] += d[i];
    }
}

extern "C" void backprop(const Layer& a, int piece, int pieces)
{
    each_item(a.networks, a.chunks, a.rows, piece, pieces, [&](const Part& part) {
        const Int m = part.network;
        const Real p[2] = {a.p[m * a.p_stride], a.p[m * a.p_stride + 1]};
        const unsigned threshold = a.dropout ? a.dropout[m] : 0;
        const Real scale = keep_scale(threshold);
        Real* sums = a.parts + (m * a.chunks + part.chunk) * (a.columns + 1);
        for (Int j = 0; j <= a.columns; ++j) sums[j] = Real(0);
        Real sum[TILE] = {}, slope_sum[LEARNED ? TILE : 1] = {}, d[TILE], kept[TILE];
        TileBits bits;
        int used = 0;                       // numbers in sum, `columns` for each row of a tile
        Int base = 0;

        auto finish = [&](int width) {      // the sums of a tile's rows
            for (int i = 0; i < used; i += width)
                for (int j = 0; j < width; ++j) sums[base + j] += sum[i + j];
            for (int i = 0; i < used; ++i) sum[i] = Real(0);
        };
        int last_width = 1;
        each_tile(part.first, part.last, a.columns, [&](Int column, int width, int height) {
            finish(last_width);
            base = column, last_width = width;
            used = int(part.last - part.first < height ? part.last - part.first : height) * width;
        }, [&](Int row, Int column, int rows, int width) {
            const Int element = row * a.columns + column, at = m * a.rows * a.columns + element;
            const int count = rows * width;
            Real* delta = a.delta + at;
            if (IDENTITY && !a.dropout) {
                for (int i = 0; i < count; ++i) sum[i] += delta[i];                 // (13)
                return;
            }
            const Real* given = (KEEPS_Z ? a.z : a.n) + at;
            const int direct = a.seeds ? 0 : count / LANES * LANES, rest = count - direct;
            times_slope(delta, given, p, sum, direct, slope_sum);
            take(d, delta + direct, rest);
            take(kept, given + direct, rest);
            if (a.dropout) {
                bits.draw(a, m, element, count, DROPOUT);
                for (int i = 0; i < count; ++i) d[i] = bits.of[i] >= threshold ? d[i] * scale : Real(0);
                if (!KEEPS_Z)
                    for (int i = 0; i < count; ++i) kept[i] /= scale;   // n before dropout, where kept
            }
            if (RANDOM && a.seeds) {
                bits.draw(a, m, element, count, SLOPE);
                for (int i = 0; i < count; ++i) {
                    const Real slope = drawn(p, bits.of[i]), own[2] = {slope, slope};
                    d[i] *= Activation::df(kept[i], kept[i], own);
                    sum[i] += d[i];
                }
            } else
                times_slope(d, kept, p, sum + direct, whole_vectors(rest), slope_sum);
            for (int i = 0; i < rest; ++i) delta[direct + i] = d[i];
        });
        finish(last_width);
        if (LEARNED) sums[a.columns] = sum_of(slope_sum, TILE);
    });
    if (pieces == 1) backprop_end(a);
}
