"use strict";
// Tables are sorted by a click on a column's name; the page is complete without this.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  if (body.rows.length < 3) continue;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      const value = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent;
      const order = (one, other) => {
        const a = value(one), b = value(other);
        const numbers = a !== "" && b !== "" && !isNaN(a) && !isNaN(b);
        return numbers ? a - b : a.localeCompare(b, "en", { numeric: true });
      };
      const rows = [...body.rows].sort((one, other) => (rising ? order(one, other) : order(other, one)));
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
