"use strict";
/* The experts to choose from (ui/experts.py): a box for every model that fits the base, in its own
   colour and glyph. Those that do not fit stand below, grey, each with its reason. One that is chosen
   and does not fit can still be taken away. */
(() => {
  const FEW = 3; // misfits that are shown unfolded
  let count = 0;

  function make(tag, attributes, ...children) {
    const node = Object.assign(document.createElement(tag), attributes);
    node.append(...children);
    return node;
  }

  function mount(element, props, watch, trigger) {
    const own = `expert-${(count += 1)}`;
    const fitting = element.querySelector(".fitting"), folded = element.querySelector(".misfits");
    const list = folded.querySelector("ul");
    const boxes = () => [...element.querySelectorAll("input")];
    const chosen = () => new Set(props.value ?? []);
    let drawn = "", wasFew = null;

    function box([name, id], index) {
      const { colour = "", glyph = "\u25CF", misfit = "" } = props.signs?.[id] ?? {};
      const input = make("input", { type: "checkbox", value: id });
      const label = make("label", { title: id }, input, make("span", { textContent: name }));
      label.dataset.glyph = glyph;
      label.style.setProperty("--own", colour);
      if (!misfit) return label;
      const reason = make("small", { id: `${own}-${index}`, textContent: misfit });
      input.setAttribute("aria-describedby", reason.id);
      return make("li", {}, label, reason);
    }

    function show() {
      const now = JSON.stringify([props.choices, props.signs]);
      if (now !== drawn) {
        drawn = now;
        const held = document.activeElement?.closest?.(".expert-choice") && document.activeElement.value;
        const made = (props.choices ?? []).map(box);
        fitting.replaceChildren(...made.filter((node) => node.matches("label")));
        list.replaceChildren(...made.filter((node) => node.matches("li")));
        const misfits = list.children.length;
        folded.hidden = misfits === 0;
        folded.querySelector("summary").textContent =
          `${misfits} ${misfits === 1 ? "does" : "do"} not fit this base`;
        if (wasFew !== misfits <= FEW) folded.open = wasFew = misfits <= FEW;
        if (held) boxes().find((input) => input.value === held)?.focus({ preventScroll: true });
      }
      const ids = chosen();
      for (const input of boxes()) {
        input.checked = ids.has(input.value);
        input.disabled = input.closest("li") !== null && !input.checked;
        input.closest("label").classList.toggle("selected", input.checked);
      }
    }

    element.addEventListener("change", ({ target }) => {
      if (!target.matches("input[type=checkbox]")) return;
      props.value = boxes().filter((input) => input.checked).map((input) => input.value);
      show();
      trigger("input");
    });
    watch(["value", "choices", "signs"], show);
    show();
  }

  globalThis.amalgamExperts = { mount };
})();
