"use strict";
/* The browser's planner: what a recipe keeps, computed from one family's pooled histograms.

   The same algorithm as the engine's plan: densities per tensor, cuts by interpolation inside a
   bin (uniform in value), retention as shares of entries, L1 and L2. Here one cell stands for the
   pooled tensors of one module of one layer. All shares are 0..1; magnitudes are |delta|. */
(() => {
  const MEASURES = ["entries", "l1", "l2"];

  /* A family as packed by the server -> typed arrays and cumulated histograms. */
  function decode(packed) {
    const text = atob(packed.counts);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const counts = new Float32Array(bytes.buffer);
    const family = { ...packed, counts, bins: packed.edges.length - 1, cells: packed.numel.length };
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
    const { bins, edges, counts } = family;
    const sums = { n: new Float64Array(bins + 1), l1: new Float64Array(bins + 1), l2: new Float64Array(bins + 1) };
    let numel = 0, l1 = 0, l2 = 0;
    for (const cell of cells) {
      numel += family.numel[cell];
      l1 += family.l1[expert][cell];
      l2 += family.l2[expert][cell];
      const start = (expert * family.cells + cell) * bins;
      for (let bin = 0; bin < bins; bin++) sums.n[bin] += counts[start + bin];
    }
    for (let bin = bins - 1; bin >= 0; bin--) {
      const low = edges[bin], high = edges[bin + 1], count = sums.n[bin];
      sums.n[bin] = sums.n[bin + 1] + count;
      sums.l1[bin] = sums.l1[bin + 1] + (count * (low + high)) / 2;
      sums.l2[bin] = sums.l2[bin + 1] + (count * (low * low + low * high + high * high)) / 3;
    }
    const scale1 = sums.l1[0] > 0 ? l1 / sums.l1[0] : 0, scale2 = sums.l2[0] > 0 ? l2 / sums.l2[0] : 0;
    for (let bin = 0; bin <= bins; bin++) { sums.l1[bin] *= scale1; sums.l2[bin] *= scale2; }
    return { ...sums, numel, total1: l1, total2: l2 };
  }

  /* The magnitude above which `keep` entries lie; 0 keeps everything. */
  function cutFor(edges, sums, keep) {
    if (keep >= sums.n[0]) return 0;
    if (keep <= 0) return Infinity;
    let low = 0, high = edges.length - 1; // n[low] >= keep > n[high]
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (sums.n[middle] >= keep) low = middle; else high = middle;
    }
    const share = (keep - sums.n[high]) / (sums.n[low] - sums.n[high]);
    return edges[high] - share * (edges[high] - edges[low]);
  }

  /* Entries, L1 and L2 above a magnitude. */
  function above(edges, sums, cut) {
    if (cut <= 0) return [sums.n[0], sums.l1[0], sums.l2[0]];
    const last = edges.length - 1;
    if (cut >= edges[last]) return [0, 0, 0];
    let bin = 0, high = last;
    while (high - bin > 1) {
      const middle = (bin + high) >> 1;
      if (edges[middle] <= cut) bin = middle; else high = middle;
    }
    const a = edges[bin], b = edges[bin + 1];
    const part = (key, share) => sums[key][bin + 1] + share * (sums[key][bin] - sums[key][bin + 1]);
    return [
      part("n", (b - cut) / (b - a)),
      part("l1", (b * b - cut * cut) / (b * b - a * a)),
      part("l2", (b ** 3 - cut ** 3) / (b ** 3 - a ** 3)),
    ];
  }

  /* The plan of one recipe.
     settings: prune, density, partitions, shift, scope, factors. Returns per expert and cell: cuts (one per
     partition, descending) and entries, l1, l2 per ring. Dynamic pruning shifts every partition. */
  function plan(family, settings) {
    const byRank = settings.prune === "magnitude" || settings.prune === "dynamic";
    const partitions = byRank ? settings.partitions : 1;
    const pruned = family.numel.map((_, cell) =>
      settings.prune === "dynamic" ? family.row_of[cell] >= 0 && family.linear : settings.prune !== "none");
    const experts = family.cell.map((cells, expert) => {
      const shared = settings.prune === "magnitude" && settings.scope === "model"
        ? rings(partitions, (share) =>
          cutFor(family.edges, family.whole[expert], family.whole[expert].numel * settings.density * share))
        : null;
      return cells.map((sums, cell) => {
        const offset = family.offsets[expert][cell];
        return planCell(family, settings, { sums, shared, partitions, pruned: pruned[cell], offset });
      });
    });
    return { settings, partitions, pruned, experts };
  }

  const clip = (share) => Math.min(1, Math.max(0, share));
  const rings = (partitions, each) =>
    Array.from({ length: partitions }, (_, ring) => each((ring + 1) / partitions));

  function planCell(family, settings, { sums, shared, partitions, pruned, offset }) {
    const uniform = (share) => ({ cuts: [0], entries: [share], l1: [share], l2: [share] });
    if (!pruned) return uniform(1);
    if (settings.prune === "random") return uniform(settings.density);
    const shift = settings.prune === "dynamic" ? settings.shift * offset : 0;
    const keep = rings(partitions, (share) => sums.numel * clip(settings.density * share + shift));
    const cuts = shared || keep.map((count) => cutFor(family.edges, sums, count));
    const result = { cuts, entries: [], l1: [], l2: [] };
    let before = [0, 0, 0];
    cuts.forEach((cut, ring) => {
      const [n, l1, l2] = above(family.edges, sums, cut);
      const entries = shared ? n : Math.min(keep[ring], sums.n[0]);
      const all = shared ? cut <= 0 : keep[ring] >= sums.numel;
      const now = all ? [1, 1, 1] : [entries / sums.numel, l1 / sums.total1 || 0, l2 / sums.total2 || 0];
      MEASURES.forEach((measure, index) => result[measure].push(now[index] - before[index]));
      before = now;
    });
    return result;
  }

  /* Shares kept over all pruned cells of one expert, or of all. `amplified`: energy
     after amplification, as a share of the energy before pruning. */
  function totals(family, planned, only = null) {
    const kept = [0, 0, 0], whole = [0, 0, 0];
    let amplified = 0;
    const any = planned.pruned.some(Boolean);
    planned.experts.forEach((cells, expert) => {
      if (only !== null && only !== expert) return;
      cells.forEach((cell, index) => {
        if (any && !planned.pruned[index]) return;
        const sums = family.cell[expert][index];
        const sizes = [sums.numel, sums.total1, sums.total2];
        MEASURES.forEach((measure, m) => {
          whole[m] += sizes[m];
          for (const share of cell[measure]) kept[m] += share * sizes[m];
        });
        cell.l2.forEach((share, ring) => { amplified += share * sums.total2 * (planned.settings.factors[ring] ?? 1) ** 2; });
      });
    });
    const share = (m) => (whole[m] > 0 ? kept[m] / whole[m] : 0);
    return { entries: share(0), l1: share(1), l2: share(2), amplified: whole[2] > 0 ? amplified / whole[2] : 0 };
  }

  /* Energy kept at each pruning rate, one list per expert. */
  function curve(family, settings, rates) {
    const at = rates.map((rate) => plan(family, { ...settings, density: 1 - rate, partitions: 1 }));
    return family.cell.map((_, expert) => at.map((planned) => totals(family, planned, expert).l2));
  }

  /* One row of the magnitude map. Per bin: the share of the row's entries, how much of it is
     kept, and the mean factor on what is kept. */
  function row(family, planned, expert, cells) {
    const { bins, edges } = family, { settings } = planned;
    const share = new Float64Array(bins), kept = new Float64Array(bins), gain = new Float64Array(bins);
    let numel = 0;
    for (const cell of cells) {
      const start = (expert * family.cells + cell) * bins;
      const { cuts } = planned.experts[expert][cell];
      numel += family.numel[cell];
      for (let bin = 0; bin < bins; bin++) {
        const count = family.counts[start + bin], low = edges[bin], high = edges[bin + 1];
        let before = 0;
        share[bin] += count;
        for (let ring = 0; ring < cuts.length; ring++) {
          const now = settings.prune === "random" ? settings.density : clip((high - cuts[ring]) / (high - low));
          kept[bin] += count * (now - before);
          gain[bin] += count * (now - before) * (settings.factors[ring] ?? 1);
          before = now;
        }
      }
    }
    for (let bin = 0; bin < bins; bin++) {
      gain[bin] = kept[bin] > 0 ? gain[bin] / kept[bin] : 1;
      kept[bin] = share[bin] > 0 ? kept[bin] / share[bin] : 0;
      share[bin] = numel > 0 ? share[bin] / numel : 0;
    }
    return { share, kept, gain };
  }

  /* The cuts of pooled cells: where as many entries lie above as the cells keep together. */
  function pooledCuts(family, planned, expert, cells) {
    if (cells.length === 1) return planned.experts[expert][cells[0]].cuts;
    const whole = family.rows.indexOf(cells);
    const sums = whole >= 0 ? family.row[expert][whole] : cumulate(family, expert, cells);
    return Array.from({ length: planned.partitions }, (_, ring) => {
      let keep = 0;
      for (const cell of cells) {
        const { entries } = planned.experts[expert][cell];
        for (let k = 0; k <= ring; k++) keep += (entries[k] ?? 0) * family.numel[cell];
      }
      return cutFor(family.edges, sums, keep);
    });
  }

  globalThis.amalgamPlan = { MEASURES, decode, plan, totals, curve, row, pooledCuts, cutFor, above };
})();
