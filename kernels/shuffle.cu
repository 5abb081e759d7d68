// The keys by which an epoch's rows are ordered: 32 random bits above the row's own number, so that
// no two are equal and every sort gives the same order.
//
// Bytes per row: writes 8.

// keys (M, rows) out; counter (row / 4, 0, epoch, SHUFFLE), key = the network's seed.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) shuffle_keys(
    const unsigned long long* seeds, unsigned epoch, unsigned long long* keys, long long rows, int chunks)
{
    const Place at = place<1>(1, chunks);
    const unsigned long long seed = seeds[at.network];
    for (long long row = item(at); row < rows; row += at.step * THREADS) {
        const unsigned long long bits = random_bits<1>(seed, row, 0u, epoch, SHUFFLE).v[0];
        keys[at.network * rows + row] = bits << 32 | (unsigned long long)row;
    }
}
