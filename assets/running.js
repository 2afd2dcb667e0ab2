"use strict";
/* The merge that runs, in the top bar. Only a page that is seen asks for it: often while something
   is merged, else now and then, and soon after a click, which may have started one. */
window.amalgamRunning = (() => {
  const BUSY_MS = 1000, IDLE_MS = 10_000, CLICK_MS = 700;

  return {
    mount(element, props, watch, trigger) {
      let timer = 0;
      const after = (pause) => {
        clearTimeout(timer);
        timer = setTimeout(look, pause);
      };
      const look = () => {
        if (document.visibilityState === "visible") trigger("look");
        after(props.value ? BUSY_MS : IDLE_MS);
      };
      const draw = () => {
        const board = element.querySelector(".running-board");
        const wanted = document.createElement("template");
        wanted.innerHTML = props.value ?? "";
        if (board) window.amalgamLive.fill(board, wanted.content);
        const offer = document.querySelector(".tour-offer"); // it has the same place
        if (offer) offer.style.visibility = props.value ? "hidden" : "";
        after(props.value ? BUSY_MS : IDLE_MS);
      };
      element.addEventListener("click", () =>
        [...document.querySelectorAll("#rooms [role=tab]")]
          .find((tab) => tab.textContent.trim() === "Merge")?.click());
      document.addEventListener("visibilitychange", () => after(0));
      document.addEventListener("click", ({target}) => {
        if (target.closest("#merge-start")) after(CLICK_MS);
      });
      watch("value", draw);
      draw();
      after(0);
    },
  };
})();
