"use strict";
// Series are switched by buttons; a cursor reads a chart out, by pointer or by arrow keys. Without this script the
// charts, their legends and their tables are all there.
document.querySelectorAll(".legend button").forEach((button) => {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    document.querySelectorAll(`[data-series="${button.dataset.for}"]`).forEach((part) => part.classList.toggle("off", !on));
  });
});

function tipOf(plot) {
  let tip = plot.querySelector(".tip");
  if (!tip) {
    tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    plot.append(tip);
  }
  return tip;
}

function place(tip, plot, x, y) {
  tip.hidden = false;
  const room = plot.clientWidth;
  const left = x > room / 2 ? x - tip.offsetWidth - 14 : x + 14;
  tip.style.left = `${Math.max(0, Math.min(left, room - tip.offsetWidth))}px`;
  tip.style.top = `${Math.max(0, y)}px`;
}

document.querySelectorAll("[data-tip]").forEach((mark) => {
  const plot = mark.closest(".plot");
  const show = () => {
    const tip = tipOf(plot);
    tip.textContent = mark.dataset.tip;
    const box = mark.getBoundingClientRect(), outer = plot.getBoundingClientRect();
    place(tip, plot, box.left + box.width / 2 - outer.left, box.top - outer.top - 34);
  };
  const hide = () => { tipOf(plot).hidden = true; };
  mark.addEventListener("pointerenter", show);
  mark.addEventListener("focus", show);
  mark.addEventListener("pointerleave", hide);
  mark.addEventListener("blur", hide);
  mark.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
});

document.querySelectorAll("[data-cursor]").forEach((plot) => {
  const steps = JSON.parse(plot.querySelector("script").textContent);
  const chart = plot.querySelector("svg"), line = plot.querySelector(".cursor"), width = chart.viewBox.baseVal.width;
  let at = Math.floor(steps.length / 2);
  plot.tabIndex = 0;
  plot.setAttribute("role", "slider");
  plot.setAttribute("aria-label", `${chart.getAttribute("aria-label")}. Arrow keys read it out`);
  plot.setAttribute("aria-valuemin", "0");
  plot.setAttribute("aria-valuemax", String(steps.length - 1));
  const words = (step) => `${step.n}: ` + step.rows.map((r) => `${r.name} ${r.total}${r.chosen ? ", chosen" : ""}`).join("; ");
  const mark = () => {
    plot.setAttribute("aria-valuenow", String(at));
    plot.setAttribute("aria-valuetext", words(steps[at]));
  };
  const show = () => {
    const step = steps[at], tip = tipOf(plot), table = document.createElement("table"), head = document.createElement("b");
    head.textContent = step.n;
    step.rows.forEach((row) => {
      const cells = table.insertRow();
      cells.insertCell().textContent = (row.chosen ? "▸ " : "") + row.name;
      cells.insertCell().textContent = row.total;
      cells.insertCell().textContent = row.transfer ? `${row.transfer} of it moving` : "";
      if (row.chosen) cells.style.fontWeight = "650";
      if (plot.parentElement.querySelector(`[data-series="${row.id}"]`).classList.contains("off")) cells.remove();
    });
    tip.replaceChildren(head, table);
    line.setAttribute("transform", `translate(${step.x} 0)`);
    line.removeAttribute("hidden");
    place(tip, plot, (step.x / width) * plot.clientWidth, 34);
    mark();
  };
  const hide = () => { tipOf(plot).hidden = true; line.setAttribute("hidden", ""); };
  const move = (event) => {
    const box = chart.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * width;
    at = steps.reduce((best, step, index) => (Math.abs(step.x - x) < Math.abs(steps[best].x - x) ? index : best), 0);
    show();
  };
  mark();
  chart.addEventListener("pointermove", move);
  chart.addEventListener("pointerdown", move);
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("focus", () => { if (plot.matches(":focus-visible")) show(); });
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -steps.length, End: steps.length }[event.key];
    if (event.key === "Escape") hide();
    if (way === undefined) return;
    event.preventDefault();
    at = Math.max(0, Math.min(steps.length - 1, at + way));
    show();
  });
});
