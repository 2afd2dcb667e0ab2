"use strict";
/* Choices in groups (ui/choices.py): one button of all groups is checked, the value's. Each group's
   buttons have a name of their own, so that the Tab key comes to every group that is open, and the
   arrow keys stay inside it. Folded, one line says what is chosen. */
(() => {
  let count = 0;

  function mount(element, props, watch, trigger) {
    const buttons = [...element.querySelectorAll("input[type=radio]")];
    const groups = [...element.querySelectorAll("details:not(.fold)")];
    const fold = element.querySelector("details.fold");
    const own = (count += 1);
    element.querySelectorAll(".options").forEach((group, index) => {
      for (const button of group.querySelectorAll("input")) button.name = `choices-${own}-${index}`;
    });
    const show = () => {
      for (const button of buttons) button.checked = button.value === props.value;
      if (fold) fold.querySelector("b").textContent = titled(buttons.find((button) => button.checked));
    };
    const titled = (button) => button?.closest("label").querySelector("span").textContent ?? "A mix of your own";
    element.addEventListener("change", ({ target }) => {
      props.value = target.value;
      show();
      trigger("input");
    });
    /* A choice by hand folds the list again; one by keyboard does not, since more may follow. */
    fold?.addEventListener("click", ({ target, detail }) => {
      if (detail === 0 || !target.closest("label")) return;
      fold.open = false;
      fold.querySelector("summary").focus({ preventScroll: true });
    });
    /* What was chosen elsewhere is unfolded, and what was open for the last one is folded. */
    watch("value", () => {
      if (buttons.find((button) => button.checked)?.value === props.value) return;
      show();
      for (const group of groups) group.open = group.querySelector(":checked") !== null;
    });
    show();
  }

  globalThis.amalgamChoices = { mount };
})();
