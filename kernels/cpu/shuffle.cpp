// The keys by which an epoch's rows are ordered, as shuffle.cu has them.

struct Shuffle {
    const unsigned long long* seeds;
    Int epoch;
    unsigned long long* keys;
    Int networks, rows, chunks;
};

extern "C" void shuffle_keys(const Shuffle& a, int piece, int pieces)
{
    each_item(a.networks, a.chunks, (a.rows + 3) / 4, piece, pieces, [&](const Part& part) {
        const unsigned long long seed = a.seeds[part.network];
        unsigned long long* keys = a.keys + part.network * a.rows;
        for (Int i = part.first; i < part.last; ++i) {
            const Philox four = philox(unsigned(i), 0u, unsigned(a.epoch), SHUFFLE, seed);
            const int count = int(a.rows - 4 * i < 4 ? a.rows - 4 * i : 4);
            for (int v = 0; v < count; ++v)
                keys[4 * i + v] = (unsigned long long)four.v[v] << 32 | (unsigned long long)(4 * i + v);
        }
    });
}
