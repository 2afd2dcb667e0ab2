"use strict";
/* A family's pooled histograms in the browser: decoded once, cumulated from the largest change down,
   and asked where the largest entries end and what lies above.

   Entries known to be equal lie at their bin's lower edge, the others evenly across it. One cell
   stands for the pooled tensors of one module of one layer; magnitudes are |delta|. */
(() => {
  const ALL = { bin: -1, share: 1, equal: 1, cut: 0 }, NOTHING = { bin: Infinity, share: 0, equal: 0, cut: Infinity };
  const bytesOf = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));

  /* A family as packed by the server -> typed arrays and cumulated histograms. */
  function decode(packed) {
    const counts = new Float32Array(bytesOf(packed.counts).buffer);
    const parts = packed.ties ? bytesOf(packed.ties) : null; // 255ths of the counts
    const tied = counts.map((count, at) => (parts ? (count * parts[at]) / 255 : 0));
    const family = { ...packed, counts, tied, bins: packed.edges.length - 1, cells: packed.numel.length };
    family.experts = counts.length / (family.bins * family.cells);
    const all = packed.numel.map((_, cell) => cell);
    const each = (make) => Array.from({ length: family.experts }, (_, expert) => make(expert));
    family.cell = each((expert) => all.map((cell) => cumulate(family, expert, [cell])));
    family.rows = packed.layers.map((_, row) => all.filter((cell) => packed.row_of[cell] === row));
    family.row = each((expert) => family.rows.map((cells) => cumulate(family, expert, cells)));
    family.whole = each((expert) => cumulate(family, expert, all));
    return family;
  }

  /* Entries, L1 and L2 at or above each edge, over some cells of one expert. */
  function cumulate(family, expert, cells) {
    const { bins, edges, counts } = family, fresh = () => new Float64Array(bins + 1);
    const sums = { n: fresh(), l1: fresh(), l2: fresh(), tied: fresh(), loose: fresh(), edges };
    let numel = 0, l1 = 0, l2 = 0;
    for (const cell of cells) {
      numel += family.numel[cell];
      l1 += family.l1[expert][cell];
      l2 += family.l2[expert][cell];
      const start = (expert * family.cells + cell) * bins;
      for (let bin = 0; bin < bins; bin++) {
        sums.tied[bin] += family.tied[start + bin];
        sums.loose[bin] += counts[start + bin] - family.tied[start + bin];
      }
    }
    for (let bin = bins - 1; bin >= 0; bin--) {
      const low = edges[bin], high = edges[bin + 1], tied = sums.tied[bin], loose = sums.loose[bin];
      sums.n[bin] = sums.n[bin + 1] + tied + loose;
      sums.l1[bin] = sums.l1[bin + 1] + loose * mean(low, high) + tied * low;
      sums.l2[bin] = sums.l2[bin + 1] + loose * square(low, high) + tied * low * low;
    }
    const scale1 = sums.l1[0] > 0 ? l1 / sums.l1[0] : 0, scale2 = sums.l2[0] > 0 ? l2 / sums.l2[0] : 0;
    for (let bin = 0; bin <= bins; bin++) { sums.l1[bin] *= scale1; sums.l2[bin] *= scale2; }
    return { ...sums, numel, total: [numel, l1, l2], scale1, scale2 };
  }

  const mean = (low, high) => (low + high) / 2;
  const square = (low, high) => (low * low + low * high + high * high) / 3;

  /* Where the largest `keep` entries end: everything above `bin`, and of it a share of the entries
     spread across it and one of those equal to its lower edge. `drops`: whatever equals the next
     entry is dropped, see `merging.tails`. */
  function locate(sums, keep, drops = false) {
    if (keep >= sums.numel) return ALL;
    if (keep <= 0 || sums.n[0] <= 0) return NOTHING;
    const changed = sums.n[0], target = Math.min(Math.max(drops ? keep + 1 : keep, 1e-9), changed);
    let bin = 0, end = sums.n.length - 1; // n[bin] >= target > n[end]
    while (end - bin > 1) {
      const middle = (bin + end) >> 1;
      if (sums.n[middle] >= target) bin = middle; else end = middle;
    }
    const need = Math.max(Math.min(keep, changed) - sums.n[bin + 1], 0);
    const loose = Math.min(need, sums.loose[bin]), left = Math.min(need - loose, sums.tied[bin]);
    const tied = drops && keep < changed ? 0 : left;
    const low = sums.edges[bin], high = sums.edges[bin + 1];
    const share = sums.loose[bin] > 0 ? loose / sums.loose[bin] : 0;
    return { bin, share, equal: sums.tied[bin] > 0 ? tied / sums.tied[bin] : 0, cut: high - share * (high - low) };
  }

  /* Entries, L1 and L2 that are kept of some cells where the largest end at a place. */
  function taken(sums, { bin, share, equal }) {
    if (bin < 0) return sums.total;
    if (bin >= sums.n.length) return [0, 0, 0];
    const low = sums.edges[bin], high = sums.edges[bin + 1], cut = high - share * (high - low);
    const loose = share * sums.loose[bin], tied = equal * sums.tied[bin];
    return [
      sums.n[bin + 1] + loose + tied,
      sums.l1[bin + 1] + sums.scale1 * (loose * mean(cut, high) + tied * low),
      sums.l2[bin + 1] + sums.scale2 * (loose * square(cut, high) + tied * low * low),
    ];
  }

  /* The magnitude above which `keep` entries lie; 0 keeps everything. */
  const cutFor = (sums, keep) => (keep >= sums.n[0] ? 0 : locate(sums, keep).cut);

  /* How many entries of some cells lie above a magnitude, the inverse of `cutFor`. */
  function above(sums, magnitude) {
    const { edges, n } = sums, last = edges.length - 1;
    if (magnitude >= edges[last]) return 0;
    let bin = 0, end = last; // edges[bin] <= magnitude < edges[end]
    while (end - bin > 1) {
      const middle = (bin + end) >> 1;
      if (edges[middle] <= magnitude) bin = middle; else end = middle;
    }
    const share = (edges[bin + 1] - magnitude) / (edges[bin + 1] - edges[bin]);
    return n[bin + 1] + share * sums.loose[bin] + (magnitude <= edges[bin] ? sums.tied[bin] : 0);
  }

  /* The sums of some cells of one expert: those of a cell, a layer or the whole are there already. */
  function sumsOf(family, expert, cells) {
    if (cells.length === 1) return family.cell[expert][cells[0]];
    const row = family.rows.indexOf(cells);
    if (row >= 0) return family.row[expert][row];
    family.sums ??= new Map();
    const key = `${expert}/${cells.join()}`;
    if (!family.sums.has(key)) family.sums.set(key, cumulate(family, expert, cells));
    return family.sums.get(key);
  }

  globalThis.amalgamPools = { ALL, decode, locate, taken, cutFor, above, sumsOf };
})();
