"use strict";
/* The History tab's board: nodes stay while it changes (see live.js), its buttons trigger events,
   times are shown in the reader's zone. */
window.amalgamHistory = (() => {
  const field = (button, name) =>
    button.closest("details")?.querySelector(`[data-field=${name}]`)?.value ?? "";

  const local = (content) => {
    for (const time of content.querySelectorAll("time[datetime]"))
      time.textContent = new Date(time.dateTime)
        .toLocaleString([], {dateStyle: "medium", timeStyle: "short"});
  };

  return {
    mount(element, props, watch, trigger) {
      let picked = [];
      const draw = () => {
        const board = element.querySelector(".history-board");
        const wanted = document.createElement("template");
        wanted.innerHTML = props.value ?? "";
        local(wanted.content);
        if (!board) return;
        window.amalgamLive.fill(board, wanted.content);
        const there = new Set([...board.querySelectorAll("[data-pick]")].map((box) => box.dataset.pick));
        const left = picked.filter((id) => there.has(id));
        if (left.length !== picked.length) compare(left);
        marked(board);
      };
      const marked = (board) => {
        for (const box of board.querySelectorAll("[data-pick]"))
          box.checked = picked.includes(box.dataset.pick);
      };
      const compare = (ids) => {
        const before = picked.length;
        picked = ids.slice(-2); // a third takes the place of the first
        if (picked.length === 2 || before === 2) trigger("compare", {ids: picked});
      };
      element.addEventListener("change", ({target}) => {
        if (target.dataset.pick === undefined) return;
        const id = target.dataset.pick;
        compare(target.checked ? [...picked, id] : picked.filter((other) => other !== id));
        marked(element);
      });
      element.addEventListener("click", ({target}) => {
        const button = target.closest("button");
        if (!button?.dataset.event) return;
        const {event, id} = button.dataset;
        trigger(event, {id, text: field(button, event)});
      });
      watch("value", draw);
      draw();
    },
  };
})();
