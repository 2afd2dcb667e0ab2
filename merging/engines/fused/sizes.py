"""How much the loops hold and do at a time."""

# Raw bytes of all models that a worker holds at a time: few enough to stay small beside a model,
# and enough that the system seldom has to be asked for more.
PIECE_BYTES = 32 << 20
TORCH_CHUNK = 1 << 17  # elements that steps without loops work on at a time
AT_ONCE = 1 << 19  # elements merged at a time: they are still in the cache when they are written
PASSING_BYTES = 96 << 20  # where nothing is read twice, and no room is needed for what stays
KEYS_BYTES = 256 << 20  # collected magnitudes held at a time, all workers together
STAY_BYTES = 80 << 20  # what a worker keeps mapped of a tensor that it reads twice
MAPPED_BYTES = 4 << 30  # of a file, shown before it is mapped anew
WORTH_BUILDING = 1 << 25  # elements x experts from which compiling the loops pays within one merge
DRAWN = 1 << 29  # entries of a tensor up to which a bit for each is held per expert
KEYS = -1  # the slots of the buffers that hold collected magnitudes go down from here
PLACES = 1 << 15  # the slots of the places of equal changes go up from here
MERGED = 1 << 16  # the slot of merged elements
TABLES, COUNTS, NEAR = MERGED + 1, MERGED + 2, MERGED + 3  # of profiles
