"use strict";
/* Paints a figure's heatmaps, bars and strokes on a canvas, at the places where plotly.js puts them:
   a hundredth of its work, so that a picture follows the hand. Names, ticks and labels are left to
   whoever asks. Used for the first sight of the page and for plots while a control moves. */
(() => {
  const DASHES = { dot: [1, 1], dash: [3, 3], longdash: [5, 5], dashdot: [3, 1, 1, 1], longdashdot: [5, 2, 1, 2] }; // of at least 3 px
  const SHADES = 4096; // steps of a colour scale

  /* Where a trace's values lie on the canvas, in CSS pixels. */
  function scales({ width, height, margin, ...layout }, { xaxis = "x", yaxis = "y" }) {
    const x = layout[xaxis.replace("x", "xaxis")], y = layout[yaxis.replace("y", "yaxis")];
    const wide = width - margin.l - margin.r, high = height - margin.t - margin.b;
    const share = (value, { type, range: [first, last] }) => ((type === "log" ? Math.log10(value) : value) - first) / (last - first);
    const [left, right] = x.domain ?? [0, 1], [foot, head] = y.domain ?? [0, 1];
    const box = { left: margin.l + wide * left, wide: wide * (right - left), top: margin.t + high * (1 - head), high: high * (head - foot) };
    return {
      x, y, box,
      across: (value) => box.left + box.wide * share(value, x),
      down: (value) => box.top + box.high * (1 - share(value, y)),
    };
  }

  /* A plotly colour scale as a function of shares 0..1, every shade worked out once. */
  function shades(scale) {
    const { mix, css } = globalThis.amalgamMap, stops = scale.map(([at, text]) => [at, text.match(/[\d.]+/g).map(Number)]);
    const worked = new Array(SHADES + 1);
    return (share) => {
      const step = Math.round(Math.min(1, Math.max(0, share)) * SHADES);
      return (worked[step] ??= (() => {
        const at = step / SHADES, next = Math.max(1, stops.findIndex(([end]) => end >= at));
        const [low, from] = stops[next - 1], [high, to] = stops[next];
        return css(mix(from, to, high > low ? (at - low) / (high - low) : 1));
      })());
    };
  }

  /* A colour scale runs over values; a map's bands end a breath before the next begins. */
  function heatmap(brush, { x, z, zmin = 0, zmax, ygap = 0, colorscale }, { across, down }) {
    const shade = shades(colorscale), edges = x.map(across);
    z.forEach((row, index) => {
      const ends = [down(index - 0.5), down(index + 0.5)], top = Math.min(...ends) + ygap / 2, high = Math.abs(ends[1] - ends[0]) - ygap;
      row.forEach((value, bin) => {
        if (value === null) return;
        brush.fillStyle = shade((value - zmin) / (zmax - zmin));
        brush.fillRect(edges[bin], top, edges[bin + 1] - edges[bin] + 0.4, high);
      });
    });
  }

  function scatter(brush, { x, y, line }, { across, down }) {
    const unit = Math.max(3, line.width);
    brush.strokeStyle = line.color;
    brush.lineWidth = line.width;
    brush.setLineDash((DASHES[line.dash] ?? []).map((part) => part * unit));
    brush.beginPath();
    let joined = false;
    for (let at = 0; at < x.length; at++) {
      if (x[at] === null) { joined = false; continue; }
      const [right, low] = [across(x[at]), down(y[at])];
      if (!joined) brush.moveTo(right, low);
      else if (line.shape === "hv") { brush.lineTo(right, down(y[at - 1])); brush.lineTo(right, low); }
      else brush.lineTo(right, low);
      joined = true;
    }
    brush.stroke();
    brush.setLineDash([]);
  }

  /* Bars on those that stand there before. `heights`: of each place so far. */
  function bar(brush, { x, y, width, marker }, { across, down, y: axis, box }, heights) {
    const foot = box.top + box.high;
    y.forEach((value, at) => {
      const below = heights[at] ?? 0, above = below + value;
      heights[at] = above;
      if (!(value > 0)) return;
      const left = across(x[at] - width[at] / 2), start = axis.type === "log" && !(below > 0) ? foot : down(below), end = down(above);
      brush.fillStyle = Array.isArray(marker.color) ? marker.color[at] : marker.color;
      brush.fillRect(left, end, across(x[at] + width[at] / 2) - left, start - end);
    });
  }

  /* Paints the traces of a figure on a canvas, which takes the figure's size.
     ground: the colour under each plot, or null to leave it clear.
     beside(brush, trace, scales): what else is wanted at a heatmap. */
  function paint(canvas, { data, layout }, { ground = null, beside = () => {} } = {}) {
    const dense = globalThis.devicePixelRatio || 1, { width, height } = layout;
    canvas.width = width * dense;
    canvas.height = height * dense;
    canvas.style.height = `${height}px`;
    const brush = canvas.getContext("2d"), heights = [];
    brush.scale(dense, dense);
    for (const trace of data) {
      const scale = scales(layout, trace), { box } = scale;
      brush.save();
      brush.beginPath();
      brush.rect(box.left, box.top, box.wide, box.high);
      brush.clip();
      if (ground && trace.type === "heatmap") {
        brush.fillStyle = ground;
        brush.fillRect(box.left, box.top, box.wide, box.high);
      }
      if (trace.type === "heatmap") heatmap(brush, trace, scale);
      else if (trace.type === "bar") bar(brush, trace, scale, heights);
      else scatter(brush, trace, scale);
      brush.restore();
      if (trace.type === "heatmap") beside(brush, trace, scale);
    }
  }

  globalThis.amalgamBrush = { paint };
})();
