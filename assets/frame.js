"use strict";
/* Explore's frame: which step shows on a phone, and the live drawer of pages that are not wide.
   The step stands on the frame itself, where the style sheet reads it. */
(() => {
  const WIDE = "(min-width: 1280px)", PHONE = "(max-width: 768px)";

  function mount(element) {
    const frame = element.closest(".explore");
    const buttons = [...element.querySelectorAll("button[data-step]")];

    function show(step) {
      frame.dataset.step = step;
      for (const button of buttons) button.ariaPressed = String(button.dataset.step === step);
      globalThis.dispatchEvent(new Event("resize")); // plots that were hidden take their width
    }

    /* On a phone a step takes another's place; elsewhere the drawer opens and closes. */
    element.addEventListener("click", ({ target }) => {
      const step = target.closest("button")?.dataset.step;
      if (!step) return;
      const closes = frame.dataset.step === step && !matchMedia(PHONE).matches;
      show(closes ? "shape" : step);
      if (matchMedia(PHONE).matches) scrollTo({ top: 0 });
    });
    document.addEventListener("keydown", ({ key }) => {
      const drawer = frame.dataset.step === "live" && !matchMedia(WIDE).matches && !matchMedia(PHONE).matches;
      if (key !== "Escape" || !drawer) return;
      show("shape");
      buttons.find((button) => button.dataset.step === "live").focus();
    });
    show("shape");
  }

  /* Undo, redo and the other side by keyboard, while Explore is on the page and nobody writes. */
  document.addEventListener("keydown", (event) => {
    const { key, target } = event, writes = target.matches?.("textarea, input:not([type=range], [type=radio], [type=checkbox])");
    if (writes || target.isContentEditable || !document.querySelector(".explore")?.offsetParent) return;
    const command = (event.ctrlKey || event.metaKey) && !event.altKey, name = key.toLowerCase();
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey;
    if (command && name === "z") document.getElementById(event.shiftKey ? "redo" : "undo")?.click();
    else if (command && name === "y") document.getElementById("redo")?.click();
    else if (plain && name === "x") document.querySelector("#side input:not(:checked)")?.click();
    else return;
    event.preventDefault();
  });

  globalThis.amalgamFrame = { mount };
})();
