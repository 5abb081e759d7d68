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
};

// As wide as Real, so that the compiler makes vectors of what is found of each number.
template<int> struct Integer { typedef int type; };
template<> struct Integer<8> { typedef Int type; };
typedef Integer<sizeof(Real)>::type Mask;

__device__ __forceinline__ bool move_range(const Rule& rule, const Update& a, Int from, Int to, const Slice& slice)
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

extern "C" void update(const Update& a, int piece, int pieces)
{
    each_item(a.networks, a.chunks, a.size / LANES, piece, pieces, [&](const Part& part) {
        const Int m = part.network, first = part.first * LANES, last = part.last * LANES;
        const Step step = step_of(a.scalars, m);
        if (step.go == Real(0)) return;
        Rule rule;
        rule.begin(a.hyper + m * HYPERS, step, Real(a.t[m]));
        const Int begin = m * a.size, middle = first > a.decayed ? first : last < a.decayed ? last : a.decayed;
        bool all = true;
        if (!a.ends)
            all = move_range(rule, a, begin + first, begin + middle, Slice{step.lr, Real(1)})
                & move_range(rule, a, begin + middle, begin + last, Slice{step.lr, Real(0)});
        else
            for (Int s = 0, from = first; from < last; ++s) {
                const Int to = a.ends[s] < last ? a.ends[s] : last;
                if (to <= from) continue;
                all &= move_range(rule, a, begin + from, begin + to, Slice{step.lr * a.rate[s], a.decay[s]});
                from = to;
            }
        if (!all) __atomic_store_n(a.halted + m, a.t[m], __ATOMIC_RELAXED);     // the same by all threads
    });
}
