"use strict";
/* The browser's planner: what a recipe keeps, computed from one family's pooled histograms.

   The same algorithm as the engine's plan, under the same laws: densities per tensor, cuts by
   interpolation inside a bin (entries known to be equal lie at its lower edge, the others evenly
   across it), retention as shares of entries, L1 and L2. An entry is kept where the factor on it is
   not 0; energy is that of the change before any factor. Here one cell stands for the pooled tensors
   of one module of one layer. All shares are 0..1; magnitudes are |delta|. */
(() => {
  const MEASURES = ["entries", "l1", "l2"];
  const { ALL, decode, locate, taken, cutFor, sumsOf } = globalThis.amalgamPools; // loaded before
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const clip = (share) => Math.min(1, Math.max(0, share));

  /* Controls -> what the planner is asked.
     values: by the names of the controls. laws: per pruner, see `declarations.laws`. */
  function settings(values, laws) {
    const prune = values.prune ?? "none", law = laws[prune];
    const knob = (name, usual) => values[`${prune}.${name}`] ?? usual;
    const skip = law.skip ? knob(law.skip, 0) : null;
    const ranked = law.order === "largest" && skip === null && law.knobs.includes("amplification");
    const partitions = skip !== null ? 2 : ranked ? Math.round(values.partitions ?? 1) : 1;
    const given = skip !== null ? [0, 1]
      : Array.from({ length: partitions }, (_, ring) => (ranked ? values[`amplification.${ring}`] ?? 1 : 1));
    const factors = knob("partition_mode", "ring") === "max" ? given.map((_, k) => Math.max(...given.slice(k))) : given;
    return {
      prune, order: law.order, linears: law.linears, partitions, factors, skip,
      density: law.order === "all" ? 1 : Math.round((1 - (values.rate ?? 0)) * 1e6) / 1e6,
      shift: knob("density_shift", 0), scope: knob("scope", "tensor"),
      drops: knob("tie_rule", "spread") === "drop",
      dense: { one: 1, max: Math.max(...factors), none: 0 }[knob("scale_dense", "one")],
      weights: Object.keys(values).filter((name) => name.startsWith("weight.")).map((name) => values[name]),
    };
  }

  /* The plan of one recipe. Returns per expert and cell: places (one per partition, see `locate`),
     entries, l1, l2 per ring whatever its factor, and the factors. */
  function plan(family, asked) {
    const pruned = family.numel.map((_, cell) =>
      asked.order !== "all" && (!asked.linears || (family.linear && family.row_of[cell] >= 0)));
    const experts = family.cell.map((cells, expert) => {
      const shared = asked.order === "largest" && asked.scope === "model"
        ? places(family.whole[expert], asked, nested(asked)) : null;
      const shares = densities(family, asked, expert, pruned);
      return cells.map((sums, cell) => planCell(sums, asked, {
        shared, pruned: pruned[cell], densities: shares.map((of) => of[cell]),
      }));
    });
    return { settings: asked, partitions: asked.partitions, pruned, experts };
  }

  /* Nested densities of the rings: as `laws.rings_between`, or as `laws.partition_densities`. */
  function nested({ density, partitions, skip }) {
    if (skip === null) return Array.from({ length: partitions }, (_, ring) => density * (ring + 1) / partitions);
    const skipped = Math.min(skip, 1 - density);
    return [skipped, skipped + density];
  }

  /* As `laws.kept_count`. */
  const keptCount = (numel, density) => Math.min(numel, Math.max(Math.floor(density * numel + 1e-9), density > 0 ? 1 : 0));

  const places = (sums, asked, shares) =>
    shares.map((density) => locate(sums, keptCount(sums.numel, density), asked.drops));

  /* Per partition: the density of every cell of one expert. */
  function densities(family, asked, expert, pruned) {
    const chosen = pruned.map((_, cell) => cell).filter((cell) => pruned[cell]);
    const own = asked.densities?.[expert]; // of cells, where they vary
    const rings = family.numel.map((_, cell) => nested(own ? { ...asked, density: own[cell] } : asked));
    return rings[0].map((_, ring) => {
      const moved = family.numel.map((_, cell) => rings[cell][ring] + asked.shift * family.offsets[expert][cell]);
      if (asked.shift && !asked.drops) {
        const of = (pick) => chosen.map(pick);
        const found = fitted(of((cell) => moved[cell]), of((cell) => family.numel[cell]), of((cell) => rings[cell][ring]));
        chosen.forEach((cell, at) => { moved[cell] = found[at]; });
      }
      return moved.map(clip);
    });
  }

  /* As `shifts.fitted`: densities that end at 0 and 1 and keep what was asked as a whole. */
  function fitted(rhos, numels, asked) {
    const total = sum(numels), kept = sum(rhos.map((rho, at) => clip(rho) * numels[at]));
    const target = sum(asked.map((density, at) => density * numels[at]));
    if (Math.abs(target - kept) <= 1e-12 * total) return rhos;
    const ends = rhos.flatMap((rho, at) => [[-rho, numels[at]], [1 - rho, -numels[at]]]).sort((a, b) => a[0] - b[0]);
    let amount = ends[0][0], growth = 0, sofar = 0;
    for (const [end, change] of ends) {
      const next = sofar + growth * (end - amount);
      if (next >= target) break;
      [sofar, amount, growth] = [next, end, growth + change];
    }
    if (growth > 0) amount += (target - sofar) / growth;
    return rhos.map((rho) => (rho + amount > 1 - 1e-12 ? 1 : rho + amount)); // all but one entry is not all
  }

  function planCell(sums, asked, { shared, pruned, densities: shares }) {
    const even = (share, gain) =>
      ({ places: [ALL], share, entries: [share], l1: [share], l2: [share], gains: [gain] });
    if (!pruned) return even(1, asked.order === "all" ? 1 : asked.dense);
    if (asked.order === "random") return even(shares[0], 1);
    const at = shared ?? places(sums, asked, shares);
    const result = { places: at, share: 1, entries: [], l1: [], l2: [], gains: asked.factors };
    let before = [0, 0, 0];
    for (const place of at) {
      const now = taken(sums, place);
      MEASURES.forEach((measure, m) => result[measure].push(sums.total[m] > 0 ? (now[m] - before[m]) / sums.total[m] : 0));
      before = now;
    }
    return result;
  }

  /* The share of a measure that one cell keeps: of rings whose factor is not 0. */
  const keptOf = (cell, measure) => sum(cell[measure].map((share, ring) => (cell.gains[ring] === 0 ? 0 : share)));

  /* Whether an expert takes part: its weight is not 0. */
  const takesPart = (planned, expert) => (planned.settings.weights[expert] ?? 1) !== 0;

  /* The share of a measure kept of some cells, of one expert or (-1) of all that take part: what
     every number on the page is.
     exact: the engine's own shares per expert and cell, where they are known. */
  function share(family, planned, exact, measure, { expert = -1, cells = null } = {}) {
    const m = MEASURES.indexOf(measure);
    let kept = 0, whole = 0;
    planned.experts.forEach((row, at) => {
      if (expert >= 0 ? at !== expert : !takesPart(planned, at)) return;
      for (const cell of cells ?? measured(planned)) {
        const size = family.cell[at][cell].total[m];
        whole += size;
        kept += size * (exact ? exact[measure][at][cell] : keptOf(row[cell], measure));
      }
    });
    return whole > 0 ? kept / whole : 0;
  }

  /* The cells that a total is over: those that are pruned, or all where none is. */
  function measured(planned) {
    const all = planned.pruned.map((_, cell) => cell), some = all.filter((cell) => planned.pruned[cell]);
    return some.length ? some : all;
  }

  /* Shares kept of what is measured. `amplified`: energy after amplification, as a share of the
     energy before pruning. */
  function totals(family, planned, expert = -1) {
    const found = Object.fromEntries(MEASURES.map((measure) => [measure, share(family, planned, null, measure, { expert })]));
    let amplified = 0, whole = 0;
    planned.experts.forEach((row, at) => {
      if (expert >= 0 ? at !== expert : !takesPart(planned, at)) return;
      for (const cell of measured(planned)) {
        const energy = family.cell[at][cell].total[2];
        whole += energy;
        row[cell].l2.forEach((part, ring) => { amplified += part * energy * row[cell].gains[ring] ** 2; });
      }
    });
    return { ...found, amplified: whole > 0 ? amplified / whole : 0 };
  }

  /* Energy kept at each pruning rate, one list per expert. */
  function curve(family, asked, rates) {
    const at = rates.map((rate) => plan(family, { ...asked, density: 1 - rate, densities: null }));
    return family.cell.map((_, expert) => at.map((planned) => share(family, planned, null, "l2", { expert })));
  }

  /* One row of the magnitude map. Per bin: the share of the row's entries, how much of it is
     kept, and the mean factor on what is kept. */
  function row(family, planned, expert, cells) {
    const { bins } = family, fresh = () => new Float64Array(bins);
    const part = fresh(), kept = fresh(), gain = fresh();
    let numel = 0;
    for (const cell of cells) {
      const start = (expert * family.cells + cell) * bins, { places: at, share: all, gains } = planned.experts[expert][cell];
      numel += family.numel[cell];
      for (let bin = 0; bin < bins; bin++) {
        const count = family.counts[start + bin], tied = family.tied[start + bin];
        let before = 0;
        part[bin] += count;
        for (let ring = 0; ring < at.length; ring++) {
          const place = at[ring];
          const now = bin > place.bin ? all * count : bin < place.bin ? 0 : place.share * (count - tied) + place.equal * tied;
          if (gains[ring] !== 0) kept[bin] += now - before;
          gain[bin] += (now - before) * gains[ring];
          before = now;
        }
      }
    }
    for (let bin = 0; bin < bins; bin++) {
      gain[bin] = kept[bin] > 0 ? gain[bin] / kept[bin] : 1;
      kept[bin] = part[bin] > 0 ? kept[bin] / part[bin] : 0;
      part[bin] = numel > 0 ? part[bin] / numel : 0;
    }
    return { share: part, kept, gain };
  }

  /* The rings that keep anything: those up to the last whose factor is not 0. */
  const lastRing = (factors) => factors.findLastIndex((factor) => factor !== 0);

  /* The cut of one cell: above it lies all that is kept. */
  const lowest = ({ places: at, gains }) => at[lastRing(at.map((_, ring) => gains[ring]))]?.cut ?? Infinity;

  /* The cuts of pooled cells: where as many entries lie above as the cells' rings hold together. */
  function pooledCuts(family, planned, expert, cells) {
    if (cells.length === 1) return planned.experts[expert][cells[0]].places.map((place) => place.cut);
    const sums = sumsOf(family, expert, cells);
    return Array.from({ length: planned.partitions }, (_, ring) => {
      let keep = 0;
      for (const cell of cells) keep += sum(planned.experts[expert][cell].entries.slice(0, ring + 1)) * family.numel[cell];
      return cutFor(sums, keep);
    });
  }

  /* The pruning rate, in steps, whose cut of some cells comes nearest to a magnitude. */
  function rateAt(family, asked, expert, cells, magnitude, { low, high, step }) {
    const last = lastRing(asked.factors), one = { ...family, cell: [], offsets: [] };
    one.cell[expert] = family.cell[expert];
    one.offsets[expert] = family.offsets[expert];
    const cutOf = (rate) => pooledCuts(family, plan(one, { ...asked, density: 1 - rate, densities: null }), expert, cells)[last];
    let below = Math.round(low / step), over = Math.round(high / step);
    while (over - below > 1) {
      const middle = (below + over) >> 1;
      if (cutOf(middle * step) <= magnitude) below = middle; else over = middle;
    }
    const [down, up] = [below, over].map((at) => Math.abs(Math.log(cutOf(at * step) / magnitude)));
    return Number(((up < down ? over : below) * step).toFixed(6));
  }

  globalThis.amalgamPlan = {
    MEASURES, decode, settings, plan, share, totals, curve, row, pooledCuts, lastRing, lowest, locate, taken, takesPart, rateAt,
  };
})();
