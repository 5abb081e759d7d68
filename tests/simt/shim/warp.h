// Where the lanes of a warp meet: shuffles, votes and __syncwarp.
#pragma once
#include <list>
#include <stdint.h>

namespace simt {

// What the lanes brought to one meeting.
struct Exchange {
    unsigned came = 0;  // a bit for each lane
    uint64_t value[32];
    char token[8];  // for the memory order of __syncwarp
};

// The lanes that one mask names. The last one to arrive goes on at once and may be at the next
// meeting before the others have read the results of this one, hence two exchanges in turn.
struct Meeting {
    unsigned mask = 0, arrived = 0, turn = 0;
    const char* what = nullptr;  // the call that the first lane arrived at
    int line = 0;
    Exchange exchanges[2];

    Exchange& current() { return exchanges[turn & 1]; }

    bool complete(unsigned live_lanes) const {
        const unsigned expected = mask & live_lanes;
        return (arrived & expected) == expected;
    }

    // Returns the lanes to wake.
    unsigned close() {
        const unsigned lanes = arrived;
        current().came = arrived;
        arrived = 0;
        ++turn;
        return lanes;
    }
};

struct Warp {
    unsigned live_lanes = 0;
    std::list<Meeting> meetings;  // a list: a waiting lane keeps a reference into it

    Meeting* find(unsigned mask) {
        for (Meeting& meeting : meetings)
            if (meeting.mask == mask) return &meeting;
        return nullptr;
    }
};

}  // namespace simt
