-- Headers of the response.
return { add_header = function(name, value) kong.response.add_header(name, value) end }
