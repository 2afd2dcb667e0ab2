"use strict";
/* An answer token by token: how probable each was, and which others were near. One stop of the Tab
   key; arrow keys go from token to token. The tip beside a token is its name for screen readers too. */
window.amalgamChatTokens = (() => {
  const percent = (share) => (share >= 0.9995 ? "over 99.9 %" : share < 0.0005 ? "under 0.1 %" : `${(share * 100).toFixed(1)} %`);
  const called = (text) => (text === "" ? "the end of the answer" : `“${text.replaceAll("\n", "⏎")}”`);
  const words = ({text, probability, others}) => {
    const rest = others.filter((one) => one[0] !== text).map(([other, share]) => `${called(other)} ${percent(share)}`);
    return `${called(text)} ${percent(probability)}${rest.length ? `; others: ${rest.join(", ")}` : ""}`;
  };

  let tip = null;
  const hide = () => tip?.remove();
  const line = (text, share, isTaken) => {
    const node = document.createElement("p");
    node.className = isTaken ? "is-taken" : "";
    const name = document.createElement("span"), value = document.createElement("span");
    name.textContent = `${isTaken ? "▸ " : ""}${called(text)}`;
    value.textContent = percent(share);
    node.append(name, value);
    return node;
  };
  const show = (node, token) => {
    hide();
    tip = document.createElement("div");
    tip.className = "token-tip";
    tip.setAttribute("aria-hidden", "true"); // the token's own name says the same
    const others = token.others.filter(([text]) => text !== token.text);
    tip.append(line(token.text, token.probability, true), ...others.map(([text, share]) => line(text, share, false)));
    node.closest(".chat-board").append(tip);
    const {left, bottom, top} = node.getBoundingClientRect(), {width, height} = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
    tip.style.top = `${bottom + height + 12 < innerHeight ? bottom + 6 : Math.max(8, top - height - 6)}px`;
  };
  addEventListener("scroll", hide, {capture: true, passive: true});
  addEventListener("keydown", (event) => event.key === "Escape" && hide());

  const STEPS = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1};
  const move = (event) => {
    const all = [...event.currentTarget.children], place = all.indexOf(event.target);
    const to = {Home: 0, End: all.length - 1}[event.key] ?? place + (STEPS[event.key] ?? NaN);
    if (!all[to]) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    all[to].tabIndex = 0;
    all[to].focus();
  };

  const build = (written) => {
    const list = document.createElement("div");
    list.className = "tokens";
    list.setAttribute("role", "list");
    list.setAttribute("aria-label", "Tokens of the answer with their probabilities");
    list.append(...written.map((token, place) => {
      const node = document.createElement("span");
      node.setAttribute("role", "listitem");
      node.setAttribute("aria-label", words(token));
      node.tabIndex = place ? -1 : 0;
      node.className = token.probability < 0.5 ? "token is-unsure" : "token";
      node.style.setProperty("--doubt", `${Math.round((1 - token.probability) * 45)}%`);
      node.textContent = token.text === "" ? "end" : token.text;
      if (token.text === "") node.classList.add("is-end");
      node.addEventListener("pointerenter", () => show(node, token));
      node.addEventListener("pointerleave", hide);
      node.addEventListener("focus", () => show(node, token));
      node.addEventListener("blur", hide);
      return node;
    }));
    list.addEventListener("keydown", move);
    return list;
  };

  return {build, words};
})();
