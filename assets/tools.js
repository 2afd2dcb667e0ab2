"use strict";
/* What stands around every plot: the choosers in its corner, and its text twins. */
(() => {
  const make = (tag, attributes = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), attributes);
    node.append(...children);
    return node;
  };

  function chooser(label, options, current, choose) {
    const list = make("select", { ariaLabel: label }, ...options.map(([name, value]) => make("option", { textContent: name, value })));
    list.value = current;
    list.addEventListener("change", () => choose(list.value));
    return list;
  }

  function button(text, title, press, ariaLabel = title) {
    const node = make("button", { type: "button", textContent: text, title, ariaLabel });
    node.addEventListener("click", press);
    return node;
  }

  const place = (value) => (value === "" ? null : Number(value));
  const text = (value) => (value === null ? "" : String(value));
  const listed = (names, word = "") => names.map((name, index) => [`${word}${name}`, String(index)]);
  const layers = (label, { family, detail }, { look }) =>
    chooser(label, [["All layers", ""], ...listed(family.layers, "Layer ")], text(detail), (value) => look({ detail: place(value) }));

  /* By the kind of panel: its own tools. */
  const OWN = {
    map: (panel, state, act) => [layers("Rows of the map", state, act)],
    retention(panel, state, { show }) {
      const experts = [["All experts", "-1"], ...listed(state.family.looks.map((look) => look.name))];
      const measures = [["Energy", "l2"], ["Entries", "entries"], ["L1", "l1"]];
      return [
        chooser("Measure", measures, state.measure, (measure) => show(panel, { measure })),
        chooser("Expert", experts, String(state.expert), (value) => show(panel, { expert: Number(value) })),
      ];
    },
    histogram(panel, state, act) {
      const { family } = state, zoom = (factor) => () => act.show(panel, { zoom: globalThis.amalgamHistogram.zoomed(state, factor) });
      const of = (name, options, value, key, read = String) =>
        chooser(name, options, value, (chosen) => act.show(panel, { [key]: read(chosen) }));
      return [
        layers("Layer of the histogram", state, act),
        chooser("Module of the histogram", [["All modules", ""], ...listed(family.modules)], text(state.module),
          (value) => act.look({ module: place(value) })),
        of("Expert of the histogram", listed(family.looks.map((look) => look.name)), String(state.filled), "filled", Number),
        of("Bars count", [["Shares", "share"], ["Counts", "count"]], state.unit, "unit"),
        of("Height", [["Linear", "linear"], ["Log", "log"]], state.height, "height"),
        button("+", "Zoom in", zoom(0.5)), button("\u2212", "Zoom out", zoom(2)),
        button("Reset", "Show all magnitudes", () => act.show(panel, { zoom: null })),
      ];
    },
  };

  /* Fills a panel's corner. `act`: what its tools do, see panel.js. */
  function tools(panel, state, act) {
    const title = panel.element.querySelector("h3")?.textContent ?? "", box = panel.element.querySelector(".as-table");
    const table = button("Table", "Show as table", () => {
      box.hidden = !box.hidden;
      table.ariaPressed = String(!box.hidden);
      describe(panel, state);
    }, `Table: ${title}`);
    table.ariaPressed = String(!box.hidden);
    const bar = panel.element.querySelector(".tools"), focused = document.activeElement;
    const at = bar.contains(focused) ? [...bar.children].indexOf(focused) : -1;
    bar.replaceChildren(...(OWN[panel.kind]?.(panel, state, act) ?? []), table);
    bar.children[at]?.focus(); // it was chosen with the keyboard
  }

  /* A table whose first row and first column are headings. */
  function table(head, rows) {
    const cell = (scope) => (content, index) => (scope || !index
      ? make("th", { textContent: content, scope: scope || "row" }) : make("td", { textContent: content }));
    const row = (cells, scope) => make("tr", {}, ...cells.map(cell(scope)));
    return make("table", {}, make("thead", {}, row(head, "col")), make("tbody", {}, ...rows.map((cells) => row(cells, ""))));
  }

  /* Text twins: label, caption and, where it is open, the table. */
  function describe(panel, state) {
    const { tables, summaries, legends, ranges, percent } = globalThis.amalgamFigures;
    const { value, element, node } = panel, { totals, plan } = state;
    const of = plan?.settings.linears ? " of the linear layers" : "";
    const kept = () => ` Kept${of}: ${percent(totals.entries)} of the entries, ${percent(totals.l2)} of the energy.`;
    const own = plan && summaries[panel.kind]?.(state);
    const legend = (plan && legends[panel.kind]?.(state)) || "";
    const summary = value.summary + (own ? ` ${own}` : totals && panel.kind !== "static" ? kept() : "") + (legend && ` ${legend}.`);
    node.setAttribute("aria-label", summary);
    element.querySelector("figcaption").textContent = summary;
    const range = (plan && ranges[panel.kind]?.(state)) || legend;
    element.querySelector(".note").textContent = (range ? `${range}. ` : "") + ((value.notes && plan && value.notes[plan.settings.prune]) || value.note || "");
    const box = element.querySelector(".as-table");
    if (box.hidden) return;
    const { head, rows } = value.table || tables[panel.kind](state);
    box.replaceChildren(table(head, rows));
  }

  globalThis.amalgamTools = { make, table, tools, describe };
})();
