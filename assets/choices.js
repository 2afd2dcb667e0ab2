"use strict";
/* Choices in groups (ui/choices.py): one button of all groups is checked, the value's. Each group's
   buttons have a name of their own, so that the Tab key comes to every group that is open, and the
   arrow keys stay inside it. */
(() => {
  let count = 0;

  function mount(element, props, watch, trigger) {
    const buttons = [...element.querySelectorAll("input[type=radio]")];
    const groups = [...element.querySelectorAll("details")];
    const own = (count += 1);
    element.querySelectorAll(".options").forEach((group, index) => {
      for (const button of group.querySelectorAll("input")) button.name = `choices-${own}-${index}`;
    });
    const show = () => {
      for (const button of buttons) button.checked = button.value === props.value;
    };
    element.addEventListener("change", ({ target }) => {
      props.value = target.value;
      show();
      trigger("input");
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
