"use strict";
/* The boards of the live card. The server sends HTML in which all that models and people wrote is
   escaped; here the nodes on the page become it one by one, so that bars glide, focus stays and
   what was unfolded stays open. */
window.amalgamLive = (() => {
  const key = (node) => node.dataset?.key ?? "";
  const alike = (one, other) => one.nodeName === other.nodeName && key(one) === key(other);

  /* What is on the page becomes what is wanted. Whether <details> are open is the reader's. */
  const become = (node, wanted) => {
    if (node.nodeType === Node.TEXT_NODE) {
      if (node.nodeValue !== wanted.nodeValue) node.nodeValue = wanted.nodeValue;
      return;
    }
    for (const {name} of [...node.attributes])
      if (!wanted.hasAttribute(name) && name !== "open") node.removeAttribute(name);
    for (const {name, value} of wanted.attributes)
      if (node.getAttribute(name) !== value) node.setAttribute(name, value);
    fill(node, wanted);
  };

  const fill = (node, wanted) => {
    const children = [...wanted.childNodes];
    children.forEach((child, place) => {
      let here = node.childNodes[place];
      if (key(child) && here && !alike(here, child)) {
        const moved = [...node.childNodes].slice(place).find((other) => alike(other, child));
        if (moved) node.insertBefore(moved, here);
        here = moved ?? here;
      }
      if (here && alike(here, child)) become(here, child);
      else if (here && !key(child) && !key(here)) here.replaceWith(child);
      else node.insertBefore(child, here ?? null);
    });
    while (node.childNodes.length > children.length) node.lastChild.remove();
  };

  return {
    fill,
    mount(element, props, watch, trigger) {
      const draw = () => {
        const board = element.querySelector(".live-board");
        const wanted = document.createElement("template");
        wanted.innerHTML = props.value ?? "";
        if (board) fill(board, wanted.content);
      };
      element.addEventListener("click", ({target}) => {
        const button = target.closest("button[data-event]");
        if (button) trigger(button.dataset.event, {prompt: button.dataset.prompt});
      });
      watch("value", draw);
      draw();
    },
  };
})();
