(() => {
  "use strict";
  // A click on a heading sorts by the first number of its cells, or by their text; cells without either stay last.
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim().replace(/,/g, "");
    const number = parseFloat(text);
    return Number.isNaN(number) ? (/^[\u2013\u2014]?$/.test(text) ? null : text.toLowerCase()) : number;
  };
  const compare = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);
  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    const sort = (column) => {
      const down = heads[column].getAttribute("aria-sort") === "ascending";
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map((row) => [value(row, column), row]);
      rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : compare(a, b) * (down ? -1 : 1)));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    };
    heads.forEach((head, column) => {
      head.tabIndex = 0;
      head.addEventListener("click", () => sort(column));
      head.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(column); }
      });
    });
  });
})();
