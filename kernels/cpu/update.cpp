// Equations (14) and (15) and their descendants over the flat buffer, as update.cu has them.
//
// The generated text before this one (gpumlp/backend/sources.py) defines Rule, the update rule of an optimiser.

struct Update {
    Real* theta;
    const Real* g;
    StateBuffers buffers;
    const Real *scalars, *hyper;
    const Int* t;
    Int* halted;
    Int networks, size, decayed, chunks;
    const Int* ends;                        // of the slices, ascending, or 0
    const Real *rate, *decay;               // the factors of each slice
    const unsigned char* occurs;            // (M, features): whether the parameters of one move; or 0
    Int features, units;                    // with N_1 parameters for each, the first of all
};

// As wide as Real, so that the compiler makes vectors of what is found of each number.
template<int> struct Integer { typedef int type; };
template<> struct Integer<8> { typedef Int type; };
typedef Integer<sizeof(Real)>::type Mask;

// The rule and the slice are copies: stores could change what is referred to, and no vectors be made.
__device__ __forceinline__ bool move_range(const Rule rule, const Update& a, Int from, Int to, const Slice slice)
{
    Real* const theta = a.theta;
    const Real* const g = a.g;
    const StateBuffers buffers = a.buffers;
    Mask stuck = 0;
    #pragma GCC ivdep
    for (Int i = from; i < to; ++i) {
        Pack<1> value = load<1>(theta + i);
        stuck |= move_pack(rule, value, load<1>(g + i), buffers, i, slice) ? Mask(0) : Mask(1);
        store<1>(theta + i, value);
    }
    return stuck == 0;
}

// The first feature from j on, and before `end`, that occurs or not as `wanted`.
inline Int next(const unsigned char* occurs, Int j, Int end, bool wanted)
{
    while (j < end && (occurs[j] != 0) != wanted) ++j;
    return j;
}

// Those of the parameters [from, to) of a network, which begin at `begin`, that move.
__device__ __forceinline__ bool move_occurring(const Rule& rule, const Update& a, Int m, Int from, Int to, const Slice& slice)
{
    const Int begin = m * a.size, end = a.occurs ? a.features * a.units : 0;
    bool all = true;
    if (from < end) {
        const unsigned char* occurs = a.occurs + m * a.features;
        const Int last = to < end ? to : end, until = (last + a.units - 1) / a.units;
        for (Int j = next(occurs, from / a.units, until, true); j < until;) {
            const Int k = next(occurs, j, until, false);    // features j .. k - 1 lie one behind the other
            all &= move_range(rule, a, begin + (j * a.units > from ? j * a.units : from),
                              begin + (k * a.units < last ? k * a.units : last), slice);
            j = next(occurs, k, until, true);
        }
        from = last;
    }
    return from < to ? all & move_range(rule, a, begin + from, begin + to, slice) : all;
}

extern "C" void update(const Update& a, int piece, int pieces)
{
    each_item(a.networks, a.chunks, a.size / LANES, piece, pieces, [&](const Part& part) {
        const Int m = part.network, first = part.first * LANES, last = part.last * LANES;
        const Step step = step_of(a.scalars, m);
        if (step.go == Real(0)) return;
        Rule rule;
        rule.begin(a.hyper + m * HYPERS, step, Real(a.t[m]));
        const Int middle = first > a.decayed ? first : last < a.decayed ? last : a.decayed;
        bool all = true;
        if (!a.ends)
            all = move_occurring(rule, a, m, first, middle, Slice{step.lr, Real(1)})
                & move_occurring(rule, a, m, middle, last, Slice{step.lr, Real(0)});
        else
            for (Int s = 0, from = first; from < last; ++s) {
                const Int to = a.ends[s] < last ? a.ends[s] : last;
                if (to <= from) continue;
                all &= move_occurring(rule, a, m, from, to, Slice{step.lr * a.rate[s], a.decay[s]});
                from = to;
            }
        if (!all) __atomic_store_n(a.halted + m, a.t[m], __ATOMIC_RELAXED);     // the same by all threads
    });
}
