"use strict";
/* Fills the live figures: a figure declared by the server plus the plan -> what plotly draws. */
(() => {
  const planner = new Proxy({}, { get: (_, name) => globalThis.amalgamPlan[name] }); // scripts load in any order
  const MINUTE = 1e-30;
  const SHARES = 4, GAINS = 6; // steps of "how much is kept" and of "how much amplified"
  const BANDS = 1 + SHARES * (GAINS + 1);
  const percent = (share) => {
    const value = 100 * share;
    return `${value.toFixed(value > 0 && value < 9.95 ? 1 : 0)}\u202f%`;
  };
  const magnitude = (value) => (value >= 0.01 ? Number(value.toPrecision(2)).toString().replace(/^0/, "") : value.toExponential(0));
  const brush = document.createElement("canvas").getContext("2d");

  function rgb(colour) {
    brush.fillStyle = "#000";
    brush.fillStyle = colour;
    const hex = brush.fillStyle;
    return hex.startsWith("#") ? [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)) : hex.match(/[\d.]+/g).slice(0, 3).map(Number);
  }
  const mix = (a, b, t) => a.map((value, i) => value + (b[i] - value) * t);
  const css = (colour) => `rgb(${colour.map(Math.round).join(",")})`;

  /* The page's colours, as they are now. */
  function palette() {
    const styles = getComputedStyle(document.body);
    const read = (name) => rgb(styles.getPropertyValue(name).trim());
    return { ink: read("--body-text-color"), soft: read("--body-text-color-subdued"), card: read("--block-background-fill"), line: read("--border-color-primary"), grey: read("--pruned") };
  }

  /* Colour scale in bands: band 0 is pruned; the others are (kept share, amplification). */
  function bands(colours, expert, settings) {
    const scale = [];
    const own = rgb(expert);
    for (let band = 0; band < BANDS; band++) {
      const kept = band === 0 ? 0 : settings.prune === "random" ? settings.density : (1 + ((band - 1) % SHARES)) / SHARES;
      const gain = (band === 0 ? 0 : Math.floor((band - 1) / SHARES)) / (GAINS / 2); // 1 is factor 1
      const deep = gain <= 1 ? mix(colours.card, own, 0.25 + 0.75 * gain) : mix(own, [0, 0, 0], 0.45 * (gain - 1));
      const full = mix(colours.grey, deep, kept);
      const faint = mix(colours.card, full, 0.24 * kept);
      scale.push([band / BANDS, css(faint)], [(band + 0.998) / BANDS, css(full)]);
    }
    scale.push([1, scale.at(-1)[1]]);
    return scale;
  }

  function bandOf(kept, gain, settings) {
    const step = settings.prune === "random" ? (settings.density > 0 ? SHARES : 0) : Math.round(kept * SHARES);
    if (step === 0) return 0;
    const level = gain <= 1 ? gain * (GAINS / 2) : (GAINS / 2) * (1 + Math.log2(gain) / 2);
    return 1 + Math.min(GAINS, Math.max(0, Math.round(level))) * SHARES + (step - 1);
  }

  /* The rows of the map: all layers, or the modules of one. */
  function mapRows(family, detail) {
    if (detail === null) return { cells: family.rows, labels: family.layers.map(String), title: "layer" };
    const cells = family.rows[detail];
    return { cells: cells.map((cell) => [cell]), labels: cells.map((cell) => family.modules[family.column_of[cell]]), title: "" };
  }

  /* Each column with its neighbours, 1 2 3 2 1: weights stored in 16 bits fall on a coarse grid. */
  function smooth(values) {
    const at = (index) => values[Math.min(values.length - 1, Math.max(1, index))];
    return values.map((value, i) => (3 * value + 2 * (at(i - 1) + at(i + 1)) + at(i - 2) + at(i + 2)) / 9);
  }

  function mapHeat(state, expert, rows, colours, skeleton) {
    const { family, plan } = state, { settings } = plan;
    const drawn = rows.cells.map((cells) => planner.row(family, plan, expert, cells));
    // columns differ in width on the logarithmic axis: colour is share per width
    const widths = family.edges.map((edge, bin) => Math.log(family.edges[bin + 1] / edge));
    const dense = drawn.map((row) => smooth(row.share.map((share, bin) => (bin > 0 ? share / widths[bin] : 0))));
    const top = Math.max(MINUTE, ...dense.map((row) => Math.max(...row)));
    const z = [], notes = [];
    drawn.forEach((row, index) => {
      let last = family.bins - 1;
      while (last > 0 && row.share[last] === 0) last--;
      const values = [], texts = [];
      for (let bin = 1; bin < family.bins; bin++) {
        const density = Math.pow(dense[index][bin] / top, 0.8);
        values.push(bin > last ? null : bandOf(row.kept[bin], row.gain[bin], settings) + 0.01 + 0.97 * density);
        texts.push(`${rows.title} ${rows.labels[index]}, |change| ${magnitude(family.edges[bin])} to ${magnitude(family.edges[bin + 1])}<br>${percent(row.share[bin])} of entries, ${percent(row.kept[bin])} of them kept`);
      }
      z.push(values);
      notes.push(texts);
    });
    return { ...skeleton, x: family.edges.slice(1), y: z.map((_, index) => index), z, customdata: notes, zmin: 0, zmax: BANDS, ygap: z.length > 14 ? 1 : 3, colorscale: bands(colours, family.looks[expert].colour, settings) };
  }

  function mapLines(state, expert, rows, shown, cutOnly) {
    const x = [], y = [];
    rows.cells.forEach((cells, index) => {
      const cuts = planner.pooledCuts(state.family, state.plan, expert, cells);
      const some = cutOnly ? cuts.slice(-1) : cuts.slice(0, -1);
      for (const cut of some) {
        if (!(cut > shown[0]) && !cutOnly) continue;
        const at = Math.min(Math.max(cut, shown[0]), shown[1]);
        x.push(at, at, null);
        y.push(index - 0.47, index + 0.47, null);
      }
    });
    return { x, y };
  }

  const TICKS = [1, 3];
  function ticks(low, high, width) {
    const values = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const step of TICKS) values.push(step * 10 ** power);
    const inside = values.filter((value) => value > low * 1.1 && value < high * 0.95);
    const every = Math.max(1, Math.ceil((inside.length * 38) / width));
    const kept = inside.filter((_, index) => (inside.length - 1 - index) % every === 0);
    return { tickvals: kept, ticktext: kept.map((value) => (value >= 0.0009 ? Number(value.toPrecision(1)).toString().replace(/^0\./, ".") : value.toExponential(0))) };
  }

  /* Where the small multiples stand, in pixels and in plotly's shares of the page. */
  function grid(count, rows, width, limit) {
    const fit = Math.max(1, Math.min(count, Math.floor((width - 40) / 132)));
    const lines = Math.ceil(count / fit), across = Math.ceil(count / lines);
    const left = 46, right = 6, gap = 18, head = 26, foot = 40;
    const wide = (width - left - right - gap * (across - 1)) / across;
    let high = Math.min(460, Math.max(132, rows * 40));
    if (limit) high = Math.max(64, Math.min(high, limit / lines - head - foot));
    const height = lines * (high + head + foot);
    const place = (index) => {
      const column = index % across, line = Math.floor(index / across);
      const x0 = left + column * (wide + gap), y0 = line * (high + head + foot) + head;
      return { first: column === 0, last: index + across >= count, x: [x0 / width, (x0 + wide) / width], y: [1 - (y0 + high) / height, 1 - y0 / height] };
    };
    return { height, wide, place };
  }

  function map(figure, state, colours, width) {
    const { family, plan } = state;
    const rows = mapRows(family, state.detail);
    const limit = innerWidth <= 768 ? innerHeight * 0.33 : 0;
    const { height, wide, place } = grid(family.experts, rows.cells.length, width, limit);
    const byRank = plan.settings.prune === "magnitude" || plan.settings.prune === "dynamic";
    const layout = { ...figure.layout, width, height, margin: { l: 0, r: 0, t: 0, b: 0 }, annotations: [] };
    const every = Math.max(1, Math.ceil(rows.labels.length / (height / 24)));
    const data = figure.data.map((skeleton) => {
      const { role, expert } = skeleton.meta;
      if (role === "heat") return mapHeat(state, expert, rows, colours, skeleton);
      if (!byRank) return { ...skeleton, x: [], y: [] };
      const thin = role === "rings" && plan.partitions > 4 ? 0.6 : 1;
      const line = { width: skeleton.line.width * thin, color: css(role === "cut" ? colours.ink : colours.card) };
      return { ...skeleton, ...mapLines(state, expert, rows, family.shown, role === "cut"), line };
    });
    family.looks.forEach((look, index) => {
      const suffix = index ? index + 1 : "", { x, y, first, last } = place(index);
      layout[`xaxis${suffix}`] = { ...figure.layout[`xaxis${suffix}`], domain: x, range: family.shown.map(Math.log10), tickcolor: css(colours.line), color: css(colours.soft), ...ticks(...family.shown, wide) };
      layout[`yaxis${suffix}`] = { ...figure.layout[`yaxis${suffix}`], domain: y, range: [rows.cells.length - 0.5, -0.5], color: css(colours.soft), showticklabels: first, ticks: first ? "outside" : "", tickcolor: css(colours.line), tickvals: rows.labels.map((_, at) => at).filter((at) => at % every === 0), ticktext: rows.labels.filter((_, at) => at % every === 0) };
      const note = (text, at, anchor, size, color, more) => layout.annotations.push({ text, x: (x[0] + x[1]) / 2, xanchor: "center", y: at, xref: "paper", yref: "paper", yanchor: anchor, showarrow: false, font: { size, color }, ...more });
      note(`<span style="color:${look.colour}">${look.glyph}</span> ${look.name}`, y[1] + 4 / height, "bottom", 13, css(colours.ink));
      if (last) note("magnitude of change", y[0] - 20 / height, "top", 11.5, css(colours.soft));
      if (first && rows.title) note(rows.title, (y[0] + y[1]) / 2, "middle", 12, css(colours.soft), { x: 0, xanchor: "left", textangle: -90 });
    });
    return { data, layout };
  }

  /* Shares kept per layer and module: [row][column], null where the model has no such module. */
  function matrix(state) {
    const { family, plan, measure, expert } = state;
    const z = family.layers.map(() => family.modules.map(() => null));
    family.row_of.forEach((row, cell) => {
      if (row < 0) return;
      const one = (index) => state.exact ? state.exact[measure][index][cell] : plan.experts[index][cell][measure].reduce((sum, share) => sum + share, 0);
      const all = plan.experts.map((_, index) => one(index));
      z[row][family.column_of[cell]] = expert < 0 ? all.reduce((sum, share) => sum + share, 0) / all.length : all[expert];
    });
    return z;
  }

  function retention(figure, state, colours, width) {
    const { family } = state, z = matrix(state);
    const top = Math.max(...z.flat());
    const zmax = [0.1, 0.2, 0.4, 0.6, 0.8].find((step) => top <= step) ?? 1;
    const notes = z.map((row, layer) => row.map((share, module) => `layer ${family.layers[layer]}, ${family.modules[module]}: ${percent(share ?? 0)} kept`));
    const few = family.layers.length <= 14 && width / family.modules.length > 34;
    const text = few ? { text: z.map((row) => row.map((share) => (share === null ? "" : `${Math.round(100 * share)}%`))), texttemplate: "%{text}", textfont: { size: 12 } } : {};
    const heat = { ...figure.data[0], ...text, x: family.modules, y: family.layers.map((_, index) => index), z, zmax, customdata: notes };
    heat.colorbar = { ...heat.colorbar, tickfont: { color: css(colours.soft) } };
    const every = Math.max(1, Math.ceil(family.layers.length / 16));
    const ticked = family.layers.map((_, index) => index).filter((index) => index % every === 0);
    const layout = { ...figure.layout, width, height: Math.min(520, Math.max(240, family.layers.length * 46 + 40)) };
    layout.xaxis = { ...layout.xaxis, type: "category", color: css(colours.soft), tickcolor: css(colours.line) };
    layout.yaxis = { ...layout.yaxis, range: [family.layers.length - 0.5, -0.5], color: css(colours.soft), tickcolor: css(colours.line), tickvals: ticked, ticktext: ticked.map((index) => String(family.layers[index])) };
    return { data: [heat], layout };
  }

  const RATES = [...Array.from({ length: 48 }, (_, i) => i / 50), 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 1];

  function energy(figure, state, colours, width) {
    const { family, plan, totals } = state, { settings } = plan;
    const key = JSON.stringify([settings.prune, settings.scope, settings.shift]);
    if (family.curveKey !== key) {
      const asked = settings.prune === "none" ? { ...settings, prune: "magnitude" } : settings;
      family.curves = planner.curve(family, asked, RATES);
      family.curveKey = key;
    }
    const data = figure.data.map((trace) => ({ ...trace, x: RATES, y: family.curves[trace.meta.expert] }));
    const rate = settings.prune === "none" ? 0 : 1 - settings.density, right = rate < 0.5;
    const more = Math.abs(totals.amplified - totals.l2) > 0.0005 ? `,<br>${percent(totals.amplified)} after amplification` : "";
    const text = settings.prune === "none" ? "nothing is pruned" : `${rate.toFixed(2)} keeps ${percent(totals.l2)}${more}`;
    const axis = { color: css(colours.soft), gridcolor: css(mix(colours.card, colours.line, 0.7)), linecolor: css(colours.line) };
    const layout = { ...figure.layout, width, height: Math.min(520, Math.max(240, family.layers.length * 46 + 40)) };
    layout.xaxis = { ...layout.xaxis, ...axis };
    layout.yaxis = { ...layout.yaxis, ...axis };
    layout.legend = { ...layout.legend, font: { color: css(colours.ink) }, bgcolor: "rgba(0,0,0,0)" };
    layout.shapes = [{ type: "line", x0: rate, x1: rate, y0: 0, y1: 1, line: { color: css(colours.ink), width: 1.6 } }];
    layout.annotations = [{ x: rate, y: 1.0, yanchor: "top", xanchor: right ? "left" : "right", xshift: right ? 6 : -6, yshift: right ? -22 : -64, align: right ? "left" : "right", text, showarrow: false, bgcolor: css(colours.card), font: { color: css(colours.ink) } }];
    return { data, layout };
  }

  function fixed(figure, _state, colours, width) {
    const layout = { ...figure.layout, width, xaxis: { ...figure.layout.xaxis, color: css(colours.soft) }, yaxis: { ...figure.layout.yaxis, color: css(colours.ink) } };
    return { data: figure.data, layout };
  }

  /* The same data as text: {head, rows}. */
  const tables = {
    map(state) {
      const rows = mapRows(state.family, state.detail);
      const head = [rows.title || "module", ...state.family.looks.flatMap((look) => [`${look.name}: cut`, "kept"])];
      const line = (cells, index) => state.family.looks.flatMap((_, expert) => {
        const numel = cells.reduce((sum, cell) => sum + state.family.numel[cell], 0);
        const kept = cells.reduce((sum, cell) => sum + state.plan.experts[expert][cell].entries.reduce((a, b) => a + b, 0) * state.family.numel[cell], 0);
        const cut = planner.pooledCuts(state.family, state.plan, expert, cells).at(-1);
        return [cut > 0 && cut < Infinity ? cut.toPrecision(3) : cut > 0 ? "above all" : "none", percent(kept / numel)];
      });
      return { head, rows: rows.cells.map((cells, index) => [rows.labels[index], ...line(cells, index)]) };
    },
    retention: (state) => ({ head: ["layer", ...state.family.modules], rows: matrix(state).map((row, index) => [String(state.family.layers[index]), ...row.map((share) => (share === null ? "" : percent(share)))]) }),
    energy: (state) => ({ head: ["rate", ...state.family.looks.map((look) => look.name)], rows: RATES.map((rate, index) => [rate, index]).filter(([rate]) => Math.abs(rate * 10 - Math.round(rate * 10)) < 1e-9 || rate > 0.965).map(([rate, index]) => [String(rate), ...state.family.curves.map((curve) => percent(curve[index]))]) }),
  };

  globalThis.amalgamFigures = { draw: { map, retention, energy, static: fixed }, tables, palette, percent };
})();
