"use strict";
/* What Gradio's own fields lack: names of their groups, number boxes that cannot be left empty, and
   buttons that copy. */
(() => {
  /* Names the groups of choices for screen readers: their headings are plain text. One name for
     the buttons of a group makes it one stop of the Tab key, with arrow keys inside. */
  function nameGroups() {
    const groups = [...document.querySelectorAll("fieldset:not(.choices)")];
    const heading = (group) => group.querySelector("[data-testid=block-info]");
    groups.forEach((group, index) => {
      group.ariaLabel = heading(group)?.textContent.trim() ?? null;
      for (const button of group.querySelectorAll("input[type=radio]")) button.name = `choice-${index}`;
    });
    nameResets();
    if (!groups.some((group) => group.ariaLabel)) setTimeout(nameGroups, 100); // not on the page yet
  }

  /* Every slider has a button to reset it, which says of which it is. */
  function nameResets() {
    for (const button of document.querySelectorAll(".reset-button")) {
      const name = button.closest(".block")?.querySelector("[data-testid=block-info]")?.textContent.trim();
      if (name) button.ariaLabel = `Reset ${name}`;
    }
  }
  document.addEventListener("focusin", ({ target }) => { // names change while sliders move
    if (target.matches?.(".reset-button")) nameResets();
  });

  /* The address holds the recipe, so that the skip link is followed without it. */
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.(".skip")) return;
    event.preventDefault();
    const room = [...document.querySelectorAll("#rooms > [role=tabpanel]")].find((panel) => panel.offsetParent);
    if (!room) return;
    room.tabIndex = -1;
    room.focus();
  });

  document.addEventListener("click", ({ target }) => {
    if (target.closest?.(".label-wrap")) setTimeout(nameGroups, 100); // what unfolds may hold groups
  });

  /* A number box that is left empty gets back what it held; Gradio would take the lowest number. */
  const boxed = ({ target }) => (target.matches?.(".card input[type=number]") ? target : null);
  document.addEventListener("focusin", (event) => {
    const box = boxed(event);
    if (box) box.dataset.held = box.value;
  });
  document.addEventListener("input", (event) => {
    const box = boxed(event);
    if (box?.value) box.dataset.held = box.value;
  }, true);
  document.addEventListener("blur", (event) => {
    const box = boxed(event);
    if (!box || box.value || !box.dataset.held) return;
    box.value = box.dataset.held;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }, true);

  /* A button with data-copy puts that on the clipboard, and says so. */
  document.addEventListener("click", async ({ target }) => {
    const button = target.closest?.("[data-copy]");
    if (!button) return;
    const was = button.textContent;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch { // not every page may write there
      if (was !== "Copy") button.textContent = button.dataset.copy; // else it stands beside it
      return;
    }
    setTimeout(() => { button.textContent = was; }, 1200);
  });

  globalThis.amalgamFields = { nameGroups };
})();
