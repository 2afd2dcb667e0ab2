"use strict";
/* The magnitude map: per expert one heatmap, rows are layers, x is |delta|; grey is pruned, colour
   is kept, deeper where it is amplified, and a dark line stands at each layer's cut. */
(() => {
  const planner = () => globalThis.amalgamPlan; // scripts load in any order
  const TINY = 1e-30;
  const SHARES = 4, GAINS = 6; // steps of "how much is kept" and of "how much amplified"
  const FAINT = 0.62; // how deep the rarest changes are drawn where they are kept: they are the largest
  const BANDS = 1 + SHARES * (GAINS + 1);
  const FINE = 9000; // cells of all maps together up to which every column is drawn
  const brush = document.createElement("canvas").getContext("2d");

  /* As `percent` of ui/findings.py. */
  const percent = (share) => {
    const value = 100 * share, digits = value === 0 || value >= 9.95 ? 0 : value >= 0.095 ? 1 : 2;
    return value > 0 && value < 0.005 ? "under 0.01\u202f%" : `${value.toFixed(digits)}\u202f%`;
  };
  const RAISED = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079";
  const power = (exponent) => (exponent < 0 ? "\u207b" : "") + [...String(Math.abs(exponent))].map((digit) => RAISED[digit]).join("");

  /* A magnitude in words, one notation everywhere: 0.003, and below a thousandth 3.2×10⁻⁴. */
  function magnitude(value, digits = 2) {
    if (!(value > 0) || value === Infinity) return String(value);
    if (value >= 0.001) return Number(value.toPrecision(digits)).toString();
    const exponent = Math.floor(Math.log10(value) + 1e-9), lead = Number((value / 10 ** exponent).toPrecision(digits));
    return `${lead === 1 ? "" : `${lead}\u00d7`}10${power(exponent)}`;
  }

  function rgb(colour) {
    brush.fillStyle = "#000";
    brush.fillStyle = colour;
    const text = brush.fillStyle;
    if (!text.startsWith("#")) return text.match(/[\d.]+/g).slice(0, 3).map(Number);
    return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
  }
  const mix = (a, b, t) => a.map((value, i) => value + (b[i] - value) * t);
  const css = (colour) => `rgb(${colour.map(Math.round).join(",")})`;

  /* The page's colours, as they are now. */
  function palette() {
    const styles = getComputedStyle(document.body);
    const read = (name) => rgb(styles.getPropertyValue(name).trim());
    const ink = read("--body-text-color"), card = read("--block-background-fill"), grey = read("--pruned");
    return {
      ink, dark: ink[0] > 128, soft: read("--body-text-color-subdued"),
      card, line: read("--border-color-primary"),
      grey: ink[0] > 128 ? mix(card, grey, 0.7) : grey, // what is pruned is not to outshine what is kept
    };
  }

  /* How deep a factor is drawn: 0 for 0, 1 for 1, at most 2. */
  const depth = (factor) => (factor <= 1 ? factor : Math.min(2, 1 + Math.log2(factor) / 2));

  /* The colour of what is kept times a factor, by its depth: away from the page's ground. */
  function tone(colours, own, deep) {
    const far = colours.dark ? [255, 255, 255] : [0, 0, 0], one = colours.dark ? mix(own, far, 0.22) : own;
    return deep <= 1 ? mix(colours.card, one, 0.25 + 0.75 * deep) : mix(one, far, 0.45 * (deep - 1));
  }

  /* Colour scale in bands: band 0 is pruned; the others are (kept share, amplification). */
  function bands(colours, expert, settings) {
    const scale = [], own = rgb(expert), random = settings.order === "random";
    for (let band = 0; band < BANDS; band++) {
      const step = (1 + ((band - 1) % SHARES)) / SHARES;
      const kept = band === 0 ? 0 : random ? settings.density : step;
      const gain = band === 0 ? 0 : Math.floor((band - 1) / SHARES) / (GAINS / 2); // 1 is factor 1
      const full = mix(colours.grey, tone(colours, own, gain), kept), faint = mix(colours.card, full, FAINT * kept);
      scale.push([band / BANDS, css(faint)], [(band + 0.998) / BANDS, css(full)]);
    }
    return [...scale, [1, scale.at(-1)[1]]];
  }

  function bandOf(kept, gain, settings) {
    const random = settings.density > 0 ? SHARES : 0;
    const step = settings.order === "random" ? random : Math.round(kept * SHARES);
    if (step === 0) return 0;
    const level = (GAINS / 2) * depth(gain);
    return 1 + Math.min(GAINS, Math.max(0, Math.round(level))) * SHARES + (step - 1);
  }

  /* The rows: all layers, or the modules of one. */
  function mapRows(family, detail) {
    if (detail === null) return { cells: family.rows, labels: family.layers.map(String), title: "layer" };
    const cells = family.rows[detail];
    const labels = cells.map((cell) => family.modules[family.column_of[cell]]);
    return { cells: cells.map((cell) => [cell]), labels, title: "" };
  }

  /* Each column with its neighbours, 1 2 3 2 1: weights stored in 16 bits fall on a coarse grid. */
  function smooth(values) {
    const at = (index) => values[Math.min(values.length - 1, Math.max(1, index))];
    return values.map((value, i) => (3 * value + 2 * (at(i - 1) + at(i + 1)) + at(i - 2) + at(i + 2)) / 9);
  }

  /* How dark each column is, 0..1: share of entries per width on the logarithmic axis. It does not
     depend on the sliders, so it is kept with the family. */
  function darkness(family, key, drawn) {
    family.dark ??= new Map();
    if (!family.dark.has(key)) {
      const widths = family.edges.map((edge, bin) => Math.log(family.edges[bin + 1] / edge));
      const dense = drawn.map((row) => smooth(row.share.map((share, bin) => (bin > 0 ? share / widths[bin] : 0))));
      const top = Math.max(TINY, ...dense.map((row) => Math.max(...row)));
      family.dark.set(key, dense.map((row) => row.map((value) => Math.pow(value / top, 0.8))));
    }
    return family.dark.get(key);
  }

  function heat(state, expert, rows, colours, skeleton) {
    const { family, plan, detail } = state, { settings } = plan;
    const drawn = rows.cells.map((cells) => planner().row(family, plan, expert, cells));
    const dark = darkness(family, `${expert}/${detail}`, drawn);
    const stride = family.experts * drawn.length * family.bins > FINE ? 2 : 1;
    const z = drawn.map((row, index) => {
      let last = family.bins - 1;
      while (last > 0 && row.share[last] === 0) last--;
      const values = [];
      for (let bin = 1; bin < family.bins; bin += stride)
        values.push(bin > last ? null : bandOf(row.kept[bin], row.gain[bin], settings) + 0.01 + 0.97 * dark[index][bin]);
      return values;
    });
    const x = family.edges.slice(1).filter((_, bin) => bin % stride === 0);
    if (x.length === z[0].length) x.push(family.edges.at(-1));
    const trace = {
      ...skeleton, x, y: z.map((_, index) => index), z, zmin: 0, zmax: BANDS, ygap: z.length > 14 ? 1 : 3,
      colorscale: bands(colours, family.looks[expert].colour, settings),
    };
    if (!state.exact) return { ...trace, hoverinfo: "skip", hovertemplate: "" }; // no labels in motion
    return { ...trace, customdata: labels(family, rows, drawn, stride) };
  }

  function labels(family, rows, drawn, stride) {
    const spans = family.edges.map((edge, bin) =>
      `|change| ${magnitude(edge)} to ${magnitude(family.edges[Math.min(bin + stride, family.bins)])}`);
    const sum = (values, bin) => (stride === 1 ? values[bin] : values[bin] + (values[bin + 1] ?? 0));
    return drawn.map((row, index) => {
      const texts = [];
      for (let bin = 1; bin < family.bins; bin += stride)
        texts.push(`${rows.title} ${rows.labels[index]}, ${spans[bin]}<br>${percent(sum(row.share, bin))} of entries, ` +
          `${percent(row.kept[bin])} of them kept`);
      return texts;
    });
  }

  /* The histogram of the merged change of every cell, as the server packed it. */
  function unpacked(arrival, family) {
    const bytes = Uint8Array.from(atob(arrival.shares), (sign) => sign.charCodeAt(0));
    const shares = Float32Array.from(bytes, (value, at) => (value / 255) * arrival.most[Math.floor(at / family.bins)]);
    return { ...arrival, shares };
  }

  /* What arrives: the share of each row's entries by the size of the merged change; dimmed while the
     controls already ask for another. */
  function merged(state, rows, colours, skeleton) {
    const { family, arrival, arrived } = state, x = family.edges.slice(1), y = rows.cells.map((_, index) => index);
    const widths = family.edges.map((edge, bin) => Math.log(family.edges[bin + 1] / edge));
    const drawn = rows.cells.map((cells) => {
      const share = new Float64Array(family.bins), numel = cells.reduce((sum, cell) => sum + family.numel[cell], 0);
      for (const cell of cells)
        for (let bin = 0; bin < family.bins; bin++) share[bin] += ((arrival?.shares[cell * family.bins + bin] ?? 0) * family.numel[cell]) / numel;
      return share;
    });
    const dense = drawn.map((row) => smooth(row.map((share, bin) => (bin > 0 ? share / widths[bin] : 0))));
    const top = Math.max(TINY, ...dense.map((row) => Math.max(...row)));
    const z = dense.map((row) => [...row.slice(1)].map((value) => (arrival ? Math.pow(value / top, 0.8) : null)));
    const full = mix(colours.card, colours.ink, arrived ? 1 : 0.4);
    const labels = drawn.map((row, index) => [...row.slice(1)].map((share, at) =>
      `${rows.title} ${rows.labels[index]}, merged: |change| ${magnitude(family.edges[at + 1])} to ${magnitude(family.edges[at + 2])}<br>${percent(share)} of entries`));
    return {
      ...skeleton, x, y, z, zmin: 0, zmax: 1, ygap: z.length > 14 ? 1 : 3, colorscale: [[0, css(colours.card)], [1, css(full)]],
      ...(arrived ? { customdata: labels } : { hoverinfo: "skip", hovertemplate: "" }),
    };
  }

  /* The cut, or the bounds between partitions, as one stroke a row. */
  function lines(state, expert, rows, role) {
    const x = [], y = [], { shown } = state.family;
    rows.cells.forEach((cells, index) => {
      const cuts = planner().pooledCuts(state.family, state.plan, expert, cells);
      const last = planner().lastRing(state.plan.settings.factors);
      for (const cut of role === "cut" ? cuts.slice(last).slice(0, 1) : cuts.slice(0, Math.max(last, 0))) {
        if (role === "rings" && !(cut > shown[0] && cut < shown[1])) continue;
        if (cut === Infinity) continue; // nothing is kept: there is no place where it is cut
        const at = Math.min(Math.max(cut, shown[0]), shown[1]);
        x.push(at, at, null);
        y.push(index - 0.47, index + 0.47, null);
      }
    });
    return { x, y };
  }

  function ticks(low, high, width) {
    const values = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      values.push(10 ** power, 3 * 10 ** power);
    const inside = values.filter((value) => value > low * 1.1 && value < high * 0.95);
    const every = Math.max(1, Math.ceil((inside.length * 38) / width));
    const tickvals = inside.filter((_, index) => (inside.length - 1 - index) % every === 0);
    return { tickvals, ticktext: tickvals.map((value) => magnitude(value, 1)) };
  }

  /* Where the small multiples stand: in plotly's shares of the page. */
  function grid(count, rows, width, limit) {
    const fit = Math.max(1, Math.min(count, Math.floor((width - 40) / 98)));
    const down = Math.ceil(count / fit), across = Math.ceil(count / down);
    const left = 46, right = 6, gap = 18, head = 26, foot = 40;
    const wide = (width - left - right - gap * (across - 1)) / across;
    let high = Math.min(460, Math.max(132, rows * 40));
    if (limit) high = Math.max(64, Math.min(high, limit / down - head - foot));
    const height = down * (high + head + foot);
    const place = (index) => {
      const column = index % across, x0 = left + column * (wide + gap);
      const y0 = Math.floor(index / across) * (high + head + foot) + head;
      return {
        first: column === 0, last: index + across >= count,
        x: [x0 / width, (x0 + wide) / width], y: [1 - (y0 + high) / height, 1 - y0 / height],
      };
    };
    return { height, high, wide, place };
  }

  /* The look of every column: the experts', and that of what arrives. */
  function looks({ family, arrival, arrived }, colours) {
    const name = arrived && !arrival ? "merged: not predicted" : "merged";
    return [...family.looks, { name, glyph: "\u2295", colour: css(colours.ink) }];
  }

  function map(figure, state, colours, width) {
    const { family, plan } = state, rows = mapRows(family, state.detail);
    const limit = innerWidth <= 768 ? innerHeight * 0.33 : 0;
    const { height, high, wide, place } = grid(family.experts + 1, rows.cells.length, width, limit);
    const byRank = plan.settings.order === "largest" && planner().lastRing(plan.settings.factors) >= 0;
    const data = figure.data.map((skeleton) => {
      const { role, expert } = skeleton.meta;
      if (role === "merged") return merged(state, rows, colours, skeleton);
      if (role === "heat") return heat(state, expert, rows, colours, skeleton);
      if (!byRank) return { ...skeleton, x: [], y: [] };
      const thin = role === "rings" && plan.partitions > 4 ? 0.6 : 1;
      const line = { width: skeleton.line.width * thin, color: css(role === "cut" ? colours.ink : colours.card) };
      return { ...skeleton, ...lines(state, expert, rows, role), line };
    });
    const dashed = globalThis.amalgamBeside?.strokes(state, rows, colours) ?? []; // the other side's cuts
    const layout = { ...figure.layout, width, height, margin: { l: 0, r: 0, t: 0, b: 0 }, annotations: [] };
    const every = Math.max(1, Math.ceil(rows.labels.length / (high / 12)));
    const marked = rows.labels.map((_, at) => at).filter((at) => at % every === 0);
    const soft = { color: css(colours.soft), tickcolor: css(colours.line) };
    looks(state, colours).forEach((look, index) => {
      const xaxis = `xaxis${index ? index + 1 : ""}`, yaxis = `yaxis${index ? index + 1 : ""}`;
      const { x, y, first, last } = place(index), middle = (x[0] + x[1]) / 2;
      const range = family.shown.map(Math.log10);
      layout[xaxis] = { ...figure.layout[xaxis], ...soft, domain: x, range, ...ticks(...family.shown, wide) };
      layout[yaxis] = {
        ...figure.layout[yaxis], ...soft, domain: y, range: [rows.cells.length - 0.5, -0.5], showticklabels: first,
        ticks: first ? "outside" : "", tickvals: marked, ticktext: marked.map((at) => rows.labels[at]),
      };
      const note = (text, more) => layout.annotations.push({
        text, x: middle, xanchor: "center", xref: "paper", yref: "paper", showarrow: false,
        font: { size: 12, color: css(colours.soft) }, ...more,
      });
      const named = `<span style="color:${look.colour}">${look.glyph}</span> ${look.name}`;
      note(named, { y: y[1] + 4 / height, yanchor: "bottom", font: { size: 13, color: css(colours.ink) } });
      if (last) note("|change|", { y: y[0] - 20 / height, yanchor: "top" });
      if (last && first && dashed.length) note(`\u00a6 ${dashed.side}\u2019s cut`, { x: 0, xanchor: "left", y: y[0] - 20 / height, yanchor: "top" });
      const beside = { x: 0, xanchor: "left", y: (y[0] + y[1]) / 2, yanchor: "middle", textangle: -90 };
      if (first && rows.title) note(rows.title, beside);
    });
    return { data: [...data, ...dashed], layout };
  }

  globalThis.amalgamMap = { map, mapRows, lines, looks, unpacked, palette, percent, magnitude, ticks, depth, tone, rgb, mix, css };
})();
