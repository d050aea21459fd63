// Shows the value under the pointer in each chart, brings the cause into view, and opens everything for printing.
"use strict";

for (const plot of document.querySelectorAll(".plot")) {
  const points = JSON.parse(plot.dataset.points);
  const output = plot.parentElement.querySelector("output");
  const hair = plot.appendChild(document.createElement("i"));
  const dot = plot.appendChild(document.createElement("u"));
  const rest = () => {
    plot.classList.remove("live");
    output.textContent = output.dataset.rest;
  };
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const x = (100 * (event.clientX - box.left)) / box.width;
    const nearest = points.reduce((best, one) => (Math.abs(one[0] - x) < Math.abs(best[0] - x) ? one : best));
    hair.style.left = dot.style.left = nearest[0] + "%";
    dot.style.top = nearest[1] + "%";
    output.textContent = nearest[2] + "  " + nearest[3];
    plot.classList.add("live");
  });
  plot.addEventListener("pointerleave", rest);
  plot.addEventListener("pointercancel", rest);
}

for (const node of document.querySelectorAll(".graph .node.cause")) {
  const frame = node.closest(".graph");
  frame.scrollLeft += node.getBoundingClientRect().right + 24 - frame.getBoundingClientRect().right;
}

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
document.documentElement.dataset.ready = "yes";
