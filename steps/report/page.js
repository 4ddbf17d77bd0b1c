
// A click on a heading sorts its table by that column; another click reverses it.
for (const button of document.querySelectorAll("table.sortable thead button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th"), body = heading.closest("table").tBodies[0];
    const descending = heading.getAttribute("aria-sort") === "ascending";
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const key = row => {
      const cell = row.cells[heading.cellIndex];
      return "value" in cell.dataset ? parseFloat(cell.dataset.value) : cell.textContent;
    };
    const compare = (a, b) => typeof a === "string" ? a.localeCompare(b, "en", {numeric: true}) : a - b;
    const rows = [...body.rows].map(row => [key(row), row]);
    const known = rows.filter(([value]) => !Number.isNaN(value)), unknown = rows.filter(([value]) => Number.isNaN(value));
    known.sort(([a], [b]) => descending ? compare(b, a) : compare(a, b));
    body.append(...[...known, ...unknown].map(([, row]) => row));
  });
}
