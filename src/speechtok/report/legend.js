(() => {
  "use strict";
  // A click on a name of a legend leaves only chosen tokenizers in full colour in the charts that follow it.
  document.querySelectorAll(".legend").forEach((legend) => {
    const charts = legend.nextElementSibling;
    const names = [...legend.querySelectorAll("[data-series]")];
    const chosen = new Set();
    const show = () => {
      names.forEach((name) => name.setAttribute("aria-pressed", chosen.has(name.dataset.series)));
      [...names, ...charts.querySelectorAll("[data-series]")].forEach((one) =>
        one.classList.toggle("faint", chosen.size > 0 && !chosen.has(one.dataset.series)));
    };
    const toggle = (number) => {
      if (!chosen.delete(number)) chosen.add(number);
      show();
    };
    names.forEach((name) => {
      name.tabIndex = 0;
      name.setAttribute("role", "button");
      name.addEventListener("click", () => toggle(name.dataset.series));
      name.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(name.dataset.series); }
      });
    });
    show();
  });
})();
