"use strict";
/* One tensor's page (ui/explore/tensor.py), below the histogram: asked for when a layer and a module
   are chosen, and again when the controls have come to rest while it is open. */
(() => {
  const { make, table } = globalThis.amalgamTools; // loaded before

  function grid({ head, rows }, name) {
    return make("div", { className: "as-table", tabIndex: 0, role: "region", ariaLabel: `Numbers of ${name}` }, table(head, rows));
  }

  function mount(element, props, watch, trigger) {
    const section = element.querySelector("section"), body = element.querySelector(".tensor-body");
    const form = element.querySelector("form"), status = element.querySelector("[role=status]");
    const chosen = {}; // what the form holds, by the names of its fields
    let asked = "", facts = null;

    /* The cell that is looked at; null where it is none. */
    function cell({ family, detail, module }) {
      return family && detail !== null && module !== null ? [family.layers[detail], family.modules[module]] : null;
    }

    function look() {
      const { state } = globalThis.amalgam, here = cell(state);
      section.hidden = !here;
      if (!here) return void (asked = "");
      if (!state.exact) return; // it is asked once the controls rest
      const question = JSON.stringify([here, state.values]);
      if (question === asked) return;
      asked = question;
      element.ariaBusy = "true";
      props.value = JSON.stringify({ cell: here });
      trigger("look");
    }

    function read() {
      const now = props.value ? JSON.parse(props.value) : null;
      if (!now?.tensors && !now?.problem) return; // what was asked here
      if (JSON.stringify(now.cell) !== JSON.stringify(cell(globalThis.amalgam.state))) return;
      facts = now;
      element.ariaBusy = "false";
      const title = now.tensors?.length === 1 ? "This tensor" : "These tensors";
      section.querySelector("h3").textContent = now.title ? `${title}: ${now.title}` : title;
      body.replaceChildren(...(now.tensors ?? []).flatMap((one) => [
        make("h4", {}, make("code", { textContent: one.name })), make("p", { className: "quiet", textContent: one.words }),
        grid(one, one.name),
      ]));
      status.textContent = now.problem ?? (now.more ? `And ${now.more} more tensors.` : "");
      fill();
    }

    function list(name, label, options) {
      const node = make("select", { name }, ...options.map(([value, words]) => new Option(words, value)));
      if (options.some(([value]) => value === chosen[name])) node.value = chosen[name];
      node.addEventListener("change", () => { chosen[name] = node.value; fill(name); });
      return make("label", {}, label, node);
    }

    function fill(focus = "") {
      const { knobs, models, scopes, rules } = facts;
      if (!knobs?.length || !scopes?.length) return form.replaceChildren();
      const knob = knobs.find(({ name }) => name === chosen.knob) ?? knobs.find(({ name }) => name === "density") ?? knobs[0];
      chosen.knob = knob.name;
      const value = make("input", { type: "number", name: "value", required: true, step: "any", value: chosen.value ?? "" });
      if (knob.low !== null) value.min = knob.low;
      if (knob.high !== null) value.max = knob.high;
      value.addEventListener("input", () => { chosen.value = value.value; });
      form.replaceChildren(
        list("knob", "Set", knobs.map(({ name, label }) => [name, label])),
        ...(knob.each ? [list("model", "of", models)] : []),
        list("filter", "for", scopes),
        make("label", {}, "to", value), make("button", { type: "submit", textContent: "Set" }),
        ...rules.map((rule) => make("p", { className: "tensor-rule" },
          `${rule.label}${rule.name ? ` of ${rule.name}` : ""}: ${rule.value} for `, make("code", { textContent: rule.filter }), " ", away(rule))));
      if (focus) form.elements[focus]?.focus();
    }

    function away(rule) {
      const words = `Take away: ${rule.label}${rule.name ? ` of ${rule.name}` : ""} for ${rule.filter}`;
      const node = make("button", { type: "button", textContent: "Take away", ariaLabel: words });
      node.addEventListener("click", () => tell({ ...rule, value: null }));
      return node;
    }

    function tell({ knob, model, filter, value }) {
      props.value = JSON.stringify({ knob, model, filter, value });
      trigger("input");
    }

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const field = (name) => form.elements[name]?.value ?? "";
      tell({ knob: field("knob"), model: field("model"), filter: field("filter"), value: Number(field("value")) });
    });
    addEventListener("amalgam-look", look);
    watch("value", read);
    look();
  }

  globalThis.amalgamTensor = { mount };
})();
